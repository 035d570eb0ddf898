"""The rearrangements of Histoformer's attention: sorted halves, boxes, interleaved runs, and the way back.

Every step is done as the host does it, in its order: its sorts turn a difference in the last bit into another image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BOXES = "b (h c) (f n)"
INTERLEAVED = "b (h c) (n f)"
_ROWS = "b h (c f) n"


class HalfOrder(NamedTuple):
    """Where the first half of the channels came from: int64 indices along the height, then along the width."""

    along_height: Tensor
    along_width: Tensor


def sort_half(x: Tensor) -> tuple[Tensor, HalfOrder]:
    """Sorts the first C // 2 channels along the height, then along the width; ``x`` itself is left as it is."""
    half = x.shape[1] // 2
    values, along_height = x[:, :half].sort(-2)
    values, along_width = values.sort(-1)
    return torch.cat([values, x[:, half:]], dim=1), HalfOrder(along_height, along_width)


def unsort_half(x: Tensor, order: HalfOrder) -> Tensor:
    """Puts the first C // 2 channels back: along the width, then along the height."""
    half = order.along_width.shape[1]
    values = x[:, :half]
    values = torch.scatter(values, -1, order.along_width, values)
    values = torch.scatter(values, -2, order.along_height, values)
    return torch.cat([values, x[:, half:]], dim=1)


def unsort(x: Tensor, order: Tensor) -> Tensor:
    """Undoes ``x.gather(2, order)`` on (B, M, N)."""
    return torch.scatter(x, 2, order, x)


def to_rows(x: Tensor, heads: int, layout: str) -> Tensor:
    """Sequences (B, h*M, N) -> rows (B, h, M*h, ceil(N/h)), zeros at the end; every head cuts into h runs."""
    x = F.pad(x, (0, -x.shape[-1] % heads))
    return rearrange(x, f"{layout} -> {_ROWS}", h=heads, f=heads)


def to_sequences(rows: Tensor, length: int, layout: str) -> Tensor:
    """Rows (B, h, M*h, n) -> sequences (B, h*M, length), the padding cut off."""
    heads = rows.shape[1]
    return rearrange(rows, f"{_ROWS} -> {layout}", h=heads, f=heads)[..., :length]
