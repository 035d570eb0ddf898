"""An attention's configuration as an entry of its state dict: a tensor that survives what trainers do to tensors.

Trainers average every entry of a state dict, cast it, move it, and use its ``.cpu()``, ``.size()`` and ``.dtype``. So
the entry is a tensor of floats, each an integer from 0 to 15 (half a byte), and is rounded when it is read. It is exact
in float16 and bfloat16, an average of equal entries does not change it, and a checksum detects anything else.
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
    """What a state dict says about one attention.

    Attributes:
        config: its options.
        built_in: whether it was part of the network's own code; False if ``patch`` put it there.
    """

    config: ExDAConfig
    built_in: bool


def encoded(description: Description) -> Tensor:
    """Returns a one-dimensional float32 CPU tensor: JSON and its CRC-32, four bits per entry, the high ones first."""
    held = {"version": VERSION, "built_in": description.built_in, **description.config.as_dict()}
    text = json.dumps(held, separators=(",", ":")).encode()
    data = text + zlib.crc32(text).to_bytes(_CHECKSUM_BYTES, "big")
    return torch.tensor([half for byte in data for half in divmod(byte, 16)], dtype=torch.float32, device="cpu")


def decoded(tensor: object, owner: str) -> Description:
    """Reads a tensor that ``encoded`` made, whatever its dtype and device are by now.

    Args:
        tensor: the tensor.
        owner: the attention, and the file if there is one; begins the error's message.

    Raises:
        CheckpointError: for any other tensor, and for a description that a newer version of this library wrote.
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
        raise ValueError("it is not a one-dimensional tensor")
    halves = [round(each) for each in tensor.detach().to("cpu", torch.float64).tolist()]
    if any(not 0 <= each < 16 for each in halves) or len(halves) % 2:
        # Two entries per byte, each 0 to 15.
        raise ValueError("its entries are not whole bytes")
    data = bytes(16 * high + low for high, low in zip(halves[::2], halves[1::2], strict=True))
    text, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if zlib.crc32(text).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise ValueError("its checksum is wrong")
    return text
