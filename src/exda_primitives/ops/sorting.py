"""The rearrangements of Histoformer's attention: sorting half the channels, cutting into bins, and back.

Every step is the host's own operation, in the host's order: its sorts amplify a difference in the last bit into another
image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Two ways to cut f * n pixels into f bins: each bin has n consecutive pixels, or every f-th pixel.
BOXES = "b (h c) (f n)"
INTERLEAVED = "b (h c) (n f)"
_ROWS = "b h (c f) n"


class HalfOrder(NamedTuple):
    """Indices of ``sort_half``, (B, C // 2, H, W) int64: of the sort along the height, then of that along the width."""

    along_height: Tensor
    along_width: Tensor


def sort_half(x: Tensor) -> tuple[Tensor, HalfOrder]:
    """Sorts the first C // 2 channels along the height, then along the width; ``x`` itself is left as it is."""
    half = x.shape[1] // 2
    values, along_height = x[:, :half].sort(-2)
    values, along_width = values.sort(-1)
    return torch.cat([values, x[:, half:]], dim=1), HalfOrder(along_height, along_width)


def unsort_half(x: Tensor, order: HalfOrder) -> Tensor:
    """Undoes ``sort_half`` on (B, C, H, W): the first C // 2 channels along the width, then along the height."""
    half = order.along_width.shape[1]
    values = x[:, :half]
    values = torch.scatter(values, -1, order.along_width, values)
    values = torch.scatter(values, -2, order.along_height, values)
    return torch.cat([values, x[:, half:]], dim=1)


def unsort(x: Tensor, order: Tensor) -> Tensor:
    """Undoes ``x.gather(2, order)`` on (B, M, N)."""
    return torch.scatter(x, 2, order, x)


def to_rows(x: Tensor, heads: int, layout: str) -> Tensor:
    """Cuts sequences (B, h*M, N) into h bins each, zeros at the end: rows (B, h, M*h, ceil(N/h)).

    The number of bins is the number of heads, as in the host.
    """
    x = F.pad(x, (0, -x.shape[-1] % heads))
    return rearrange(x, f"{layout} -> {_ROWS}", h=heads, f=heads)


def to_sequences(rows: Tensor, length: int, layout: str) -> Tensor:
    """Undoes ``to_rows``: rows (B, h, M*h, n) -> sequences (B, h*M, length), the padding cut off."""
    heads = rows.shape[1]
    return rearrange(rows, f"{_ROWS} -> {layout}", h=heads, f=heads)[..., :length]
