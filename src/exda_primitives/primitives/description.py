"""What an attention says of itself in its state dict: its configuration, as a tensor that survives what is done to one.

Trainers average every entry of a state dict, cast it, move it, and call ``.cpu()``, ``.size()`` and ``.dtype`` of it.
So it is a tensor of floats, each one of 0 to 15, and read by rounding: exact in float16 and bfloat16, unchanged by an
average of equal ones, and told by a checksum from anything else.
"""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from .config import ExDAConfig

VERSION = 1
_CHECKSUM_BYTES = 4


class Description(NamedTuple):
    """What a state dict says of one attention.

    Attributes:
        config: its options.
        built_in: whether the network was written with it, rather than patched.
    """

    config: ExDAConfig
    built_in: bool


def encoded(description: Description) -> Tensor:
    """As a one-dimensional float32 tensor on the CPU: JSON and its CRC-32, four bits an entry, the high ones first."""
    held = {"version": VERSION, "built_in": description.built_in, **description.config.as_dict()}
    text = json.dumps(held, separators=(",", ":")).encode()
    data = text + zlib.crc32(text).to_bytes(_CHECKSUM_BYTES, "big")
    return torch.tensor([half for byte in data for half in divmod(byte, 16)], dtype=torch.float32, device="cpu")


def decoded(tensor: object, owner: str) -> Description:
    """What ``encoded`` made a tensor of, in whatever dtype and on whatever device it is by now.

    Args:
        tensor: to read.
        owner: begins the error's message: the attention, and the file.

    Raises:
        CheckpointError: for anything else, and for what a newer version of this library wrote.
    """
    try:
        text = _text(tensor)
        held = json.loads(text)
        version = int(held.pop("version"))
        if version > VERSION:
            raise CheckpointError(
                f"{owner}: its configuration is of version {version}, this library reads up to {VERSION}; upgrade "
                f"exda_primitives."
            )
        return Description(built_in=held.pop("built_in") is True, config=ExDAConfig(**held))
    except (AttributeError, ConfigError, KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{owner}: its configuration cannot be read ({error}); it was damaged, or averaged with another one."
        ) from error


def _text(tensor: object) -> bytes:
    if not isinstance(tensor, Tensor) or tensor.ndim != 1:
        raise ValueError("it is no tensor of one dimension")
    halves = [round(each) for each in tensor.detach().to("cpu", torch.float64).tolist()]
    if any(not 0 <= each < 16 for each in halves) or len(halves) % 2:
        raise ValueError("its entries are not whole bytes")
    data = bytes(16 * high + low for high, low in zip(halves[::2], halves[1::2], strict=True))
    text, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if zlib.crc32(text).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise ValueError("its checksum is wrong")
    return text
