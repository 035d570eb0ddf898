"""Checkpoints that are crafted to be wrong: most are intact files with wrong or malicious contents."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .checkpoints import network

EVIDENCE = "code-was-run"
"""Name of the file that code in a pickle leaves in the working directory if it is run."""


class Touches:
    """Leaves the evidence when unpickled, by a call of ``Path.touch``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(EVIDENCE),)


class Evaluates:
    """Leaves the evidence when unpickled, by a call of ``eval``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({EVIDENCE!r}, 'w').close()",)


def crafted_files() -> dict[str, bytes]:
    """Returns the crafted files: file name, with its ending -> contents."""
    return (
        {f"{name}.pth": _torch_saved(held) for name, held in _odd_objects().items()}
        | {f"{name}.pkl": pickle.dumps(held) for name, held in {"touches": Touches(), "evaluates": Evaluates()}.items()}
        # 100,000 nested lists: protocol 2, EMPTY_LIST opcodes, APPEND opcodes, STOP.
        | {"deep.pkl": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."}
        | {f"{name}.safetensors": data for name, data in _odd_safetensors().items()}
        | {f"ours_{name}.safetensors": _with_header(**change) for name, change in _ODD_HEADERS.items()}
    )


def _odd_objects() -> dict[str, Any]:
    state = dict(network().state_dict())
    loop: dict[str, Any] = {}
    loop["state_dict"] = loop
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    return {
        "code_bare": Touches(),
        "code_inside": {"params": {**state, "hook": Evaluates()}},
        "list": [1, 2],
        "empty": {},
        "number": {"state_dict": {"output.weight": 3}},
        "number_as_name": {1: torch.zeros(1)},
        "tensor": torch.zeros(2),
        "loop": loop,
        "deep": {"state_dict": {"output.weight": deep}},
        "scalar": {**state, "output.weight": torch.tensor(1.0)},
        "integers": {name: tensor.to(torch.int64) for name, tensor in state.items()},
        "complex": {name: tensor.to(torch.complex64) for name, tensor in state.items()},
        "nan": {**state, "output.weight": torch.full_like(state["output.weight"], torch.nan)},
        "infinite": {**state, "output.weight": torch.full_like(state["output.weight"], torch.inf)},
        "sparse": {**state, "output.weight": state["output.weight"].to_sparse()},
        "meta": {**state, "output.weight": state["output.weight"].to("meta")},
        # Tiny in the file, huge once materialised.
        "expanded": {**state, "output.weight": torch.zeros(1).expand(1 << 30, 1 << 30)},
        "wide": {**state, "patch_embed.proj.weight": torch.zeros(1).expand(1 << 20, 3, 3, 3)},
        "no_heads": {**state, "encoder_level1.0.attn.temperature": torch.zeros(0, 1, 1)},
        "many_levels": {**state, **{f"latent.{i}.attn.temperature": torch.zeros(1) for i in range(2000)}},
    }


def _odd_safetensors() -> dict[str, bytes]:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

    # A safetensors file: length of the header as a 64-bit little-endian integer, header in JSON, tensors' bytes.
    def file(header: object, body: bytes = bytes(8)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    return {
        "huge_header": struct.pack("<Q", 1 << 62) + b"{}",
        "header_beyond_the_file": struct.pack("<Q", 1000) + b"{}",
        "no_json": file(b"not json"),
        "no_utf8": file(b"\xff\xfe{}"),
        "deep_json": file(b"[" * 100_000),
        "list": file([]),
        "overlap": file({"a": tensor, "b": tensor}),
        "beyond": file({"a": {**tensor, "data_offsets": [0, 1 << 40]}}),
        "negative": file({"a": {**tensor, "data_offsets": [-8, 0]}}),
        "reversed": file({"a": {**tensor, "data_offsets": [8, 0]}}),
        "hole": file({"a": {**tensor, "data_offsets": [8, 16]}}, bytes(16)),
        "wrong_shape": file({"a": {**tensor, "shape": [3]}}),
        "overflowing_shape": file({"a": {**tensor, "shape": [1 << 40, 1 << 40]}}),
        "unknown_dtype": file({"a": {**tensor, "dtype": "F33"}}),
        "metadata_of_numbers": file({"a": tensor, "__metadata__": {"version": 1}}),
        "nothing": file({}, b""),
        "nan": save({"output.weight": torch.full((3, 8, 3, 3), torch.nan)}),
    }


def _config(**change: Any) -> str:
    return json.dumps({"tokens": 2, **change})


_ODD_HEADERS: dict[str, dict[str, str]] = {
    "version_unknown": {"version": "2"},
    "version_text": {"version": "one"},
    "version_huge": {"version": "9" * 5000},
    "config_no_json": {"config": "{"},
    "config_list": {"config": "[]"},
    "config_null": {"config": "null"},
    "config_deep": {"config": "[" * 50_000},
    "option_unknown": {"config": _config(colour="red")},
    "option_of_another_type": {"config": _config(value=3)},
    "tokens_negative": {"config": _config(tokens=-1)},
    "tokens_many": {"config": _config(tokens=1 << 30)},
    "tokens_beyond_int64": {"config": _config(tokens=1 << 80)},
    "stride_many": {"config": _config(stride=1 << 30)},
    "stride_beyond_int64": {"config": _config(stride=1 << 80)},
    "channelwise": {"config": _config(reinject="channelwise", tokens=1)},
    "modules_none": {"modules": "[]"},
    "modules_null": {"modules": "null"},
    "modules_text": {"modules": '"attn"'},
    "modules_unknown": {"modules": '["body.attn"]'},
    "modules_pattern": {"modules": '["*"]'},
    "modules_bracket": {"modules": '["["]'},
    "modules_empty_name": {"modules": '[""]'},
    "modules_twice": {"modules": '["attn", "attn"]'},
    "modules_long": {"modules": json.dumps(["a" * 100_000])},
    "whole_text": {"whole": '"yes"'},
    "whole_true": {"whole": "true"},
}


def _with_header(**change: str) -> bytes:
    header = {"format": "exda_primitives", "version": "1", "config": _config(), "modules": '["attn"]', "whole": "false"}
    tensors: dict[str, Tensor] = {"attn.alpha": torch.zeros(2, 1, 1), "attn.token_gate": torch.zeros(2, 1, 1)}
    return save(tensors, header | change)


def _torch_saved(held: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(held, buffer)
    return buffer.getvalue()
