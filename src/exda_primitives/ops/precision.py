"""Norms, softmax and Gram sums of half types are taken in float32.

``F.normalize``'s eps of 1e-12 is 0 in float16, and a sum over a megapixel overflows there.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for float16 and bfloat16, the dtype itself otherwise."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def unit_divisor(rows: Tensor) -> Tensor:
    """What to divide rows (..., N) by for an L2 norm of 1: ``F.normalize``'s max(norm, 1e-12), (..., 1).

    Rows of zeros stay zeros, as there, but have a divisor of 1: they have no direction, and a derivative of 1e12, which
    means nothing, overflows in float16.
    """
    return divisor(norms(rows))


def norms(rows: Tensor) -> Tensor:
    """L2 norms of rows (..., N), (..., 1)."""
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True)


def divisor(norm: Tensor) -> Tensor:
    """``unit_divisor`` of rows that have these norms."""
    return torch.where(norm == 0, 1, norm.clamp_min(EPS))


def widen(x: Tensor) -> Tensor:
    """``x`` in its accumulation dtype; ``x`` itself where that is the same."""
    return x.to(accumulation_dtype(x.dtype))


def without_autocast(x: Tensor) -> torch.autocast:
    """A region in which autocast does not send the small matrices back to half precision."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def product_dtype(x: Tensor) -> torch.dtype:
    """In which convolutions and matrix products take ``x``: that of autocast where it is on, and x is not float64."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype is torch.float64:
        return x.dtype
    return torch.get_autocast_dtype(kind)
