"""Copies maps whose rows are not aligned into longer rows that are, so that kernels load vectors at any image width.

A map (B, C, H, W) is stored in rows of ``pitch(W)`` elements. The elements beyond W are read, but affect no pixel: the
1x1 products take each pixel by itself, and the depthwise convolutions treat them as zeros and write zeros there.
"""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import SymInt, Tensor

_ALIGNED = 16
"""In elements: of a row's length, Triton knows only whether it is a multiple of 16 (``launch.row_aligned``)."""

_Int = TypeVar("_Int", int, SymInt)


def pitch(width: _Int) -> _Int:
    """Length in elements of the rows in which maps of this width are stored: the next multiple of 16."""
    return (width + _ALIGNED - 1) // _ALIGNED * _ALIGNED


def in_long_rows(x: Tensor) -> Tensor:
    """Returns a map (B, C, H, W) in its long rows, (B, C, H, pitch(W)).

    Without a copy if W is a multiple of 16, or if ``x`` was cut out of such rows, as a step's output is; else padded.
    """
    length = pitch(x.shape[3])
    if length == x.shape[3]:
        return x
    batch, channels, height, _ = x.shape
    strides = (channels * height * length, height * length, length, 1)
    # The view also covers the last row's end, which has to be in the storage.
    end = x.storage_offset() + batch * strides[0]
    if x.stride() == strides and end <= x.untyped_storage().nbytes() // x.element_size():
        return x.as_strided((batch, channels, height, length), strides)
    return F.pad(x, (0, length - x.shape[3]))
