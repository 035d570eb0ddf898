from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exda_primitives.ops.triton.tiles import tile_side

SCRIPT = Path(__file__).with_name("compilation.py")
PACKAGE = "exda_primitives.ops.triton"
Kernel = tuple[str, str, dict[str, Any]]


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def pointers(dtype: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, f"*{dtype}")


def grams(dtype: str, c: int, tokens: int, block: int) -> list[Kernel]:
    arguments = (
        pointers(dtype, "q", "k", "g", "dq", "dk", "dg")
        | pointers("fp32", "partial", "grad")
        | integers("q_batch", "q_row", "k_batch", "k_row", "g_batch", "g_row", "N", "heads")
        | {"C": c, "K": tokens, "SPLIT": 4096, "BLOCK": block, "TILES": -(-(c + tokens) // block), "ALIGNED": True}
        | {"TYPE": "float32", "PRECISION": "ieee"}
    )
    # One head, one pixel: Triton makes constants of integers that are 1.
    ones = arguments | dict.fromkeys(("heads", "q_row", "k_row", "g_row", "N"), 1)
    return [
        (f"{PACKAGE}.gram", kernel, sizes)
        for kernel in ("_gram_kernel", "_gram_backward_kernel")
        for sizes in (arguments, ones)
    ]


def folds(dtype: str, c: int, tokens: int, channelwise: bool) -> list[Kernel]:
    arguments = (
        pointers("fp32", "products", "q_squares", "k_squares", "matrix", "token_matrix", "out", "shift")
        | pointers(dtype, "temperature", "gate", "alpha", "left", "weight", "vector", "bias")
        | integers("products_image", "products_head", "q_image", "q_head", "k_image", "k_head", "left_row", "heads")
        | integers("weight_row")
        | {"scale": 0.5, "ROWS": 2 * c, "C": c, "COLUMNS": c, "K": tokens, "CHANNELWISE": channelwise, "BIAS": True}
        | {"BLOCK_O": 32, "BLOCK_M": tile_side(c + tokens, 4096), "BLOCK_R": 16, "BLOCK": 32, "TYPE": "float32"}
    )
    absent = {} if tokens else {"gate": None, "alpha": None}
    return [(f"{PACKAGE}.fold", kernel, arguments | absent) for kernel in ("_fold_kernel", "_compose_kernel")]


def mixes(dtype: str, rows: int, channels: tuple[int, int, int], block: int) -> list[Kernel]:
    pairs = [f"{name}{i}" for i in range(3) for name in ("x", "dx")]
    strides = [f"{name}{i}_{what}" for name in ("m", "x") for i in range(3) for what in ("image", "row")]
    arguments = (
        pointers(dtype, *pairs, "grad", "residual", "out")
        | pointers("fp32", "m0", "m1", "m2", "shift", "partial")
        | integers(
            *strides, "shift_image", "shift_row", "residual_image", "residual_row", "grad_image", "grad_row", "N"
        )
        | dict(zip(("C0", "C1", "C2"), channels, strict=True))
        | {"ROWS": rows, "SHIFT": True, "RESIDUAL": True, "SPLIT": 4096, "TYPE": "float32", "PRECISION": "ieee"}
    )
    ones = dict.fromkeys((*strides, "N", "grad_row", "shift_row", "residual_row"), 1)
    kernels = ("_mix_kernel", {"BLOCK_O": block}), ("_matrix_gradients_kernel", {"BLOCK_O": block, "BLOCK_C": block})
    return [
        (f"{PACKAGE}.mix", kernel, arguments | blocks | sizes)
        for kernel, blocks in (*kernels, ("_map_gradients_kernel", {"BLOCK_C": min(block, 64)}))
        for sizes in ({}, ones)
    ]


def kernels(dtype: str) -> list[Kernel]:
    if dtype == "fp32":
        return grams(dtype, 48, 1, 32) + folds(dtype, 18, 18, True) + mixes(dtype, 48, (48, 48, 1), 64)
    return (
        grams(dtype, 48, 1, 64)
        + grams(dtype, 176, 0, 64)
        + folds(dtype, 48, 0, False)
        + mixes(dtype, 48, (48, 9, 0), 64)
    )


@pytest.mark.parametrize(("capability", "dtype"), [(90, "bf16")])
def test_every_kernel_compiles_for_a_gpu(capability: int, dtype: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, SCRIPT, str(capability)],
        input=json.dumps(kernels(dtype)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # What one program of an A100 can have; a newer GPU has more.
    assert max(json.loads(run.stdout)) <= 163 * 1024
