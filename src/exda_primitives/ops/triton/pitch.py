"""Maps whose rows are not aligned, in rows that are: kernels load and store vectors of whatever image.

A map (B, C, H, W) lies in rows of ``pitch(W)`` elements. What is beyond W is read along, and has no part in anything:
products are of each pixel alone, and the depthwise convolutions, which look sideways, take it for zeros and write such.
"""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import SymInt, Tensor

_ALIGNED = 16
"""Elements: Triton is told of multiples of 16 alone (``launch.row_aligned``)."""

_Int = TypeVar("_Int", int, SymInt)


def pitch(width: _Int) -> _Int:
    """Length of the rows of maps of this width."""
    return (width + _ALIGNED - 1) // _ALIGNED * _ALIGNED


def in_long_rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, pitch(W)): itself if it is as wide, all of it if it lies in such rows, else a copy."""
    length = pitch(x.shape[3])
    if length == x.shape[3]:
        return x
    batch, channels, height, _ = x.shape
    strides = (channels * height * length, height * length, length, 1)
    end = x.storage_offset() + batch * strides[0]
    if x.stride() == strides and end <= x.untyped_storage().nbytes() // x.element_size():
        return x.as_strided((batch, channels, height, length), strides)
    return F.pad(x, (0, length - x.shape[3]))
