"""Dtypes: norms, softmax and Gram sums of half types are computed in float32.

In float16, ``F.normalize``'s eps of 1e-12 is 0, and a sum over a megapixel overflows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Of `F.normalize`, which hosts call.
EPS = 1e-12


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns float32 for float16 and bfloat16, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def unit_divisor(rows: Tensor) -> Tensor:
    """Returns what to divide rows (..., N) by for an L2 norm of 1: ``F.normalize``'s max(norm, 1e-12), (..., 1).

    Rows of zeros stay zeros, as there, but their divisor is 1: they have no direction, and the derivative 1 / 1e-12
    would be meaningless and overflow in float16.
    """
    return divisor(norms(rows))


def norms(rows: Tensor) -> Tensor:
    """L2 norms of rows, (..., N) -> (..., 1)."""
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True)


def divisor(norm: Tensor) -> Tensor:
    """Returns ``unit_divisor`` of rows whose norms are known, (..., 1)."""
    return torch.where(norm == 0, 1, norm.clamp_min(EPS))


def widen(x: Tensor) -> Tensor:
    """``x`` in its accumulation dtype; ``x`` itself where that is the same."""
    return x.to(accumulation_dtype(x.dtype))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off on the device of ``x``: it would take products of the small matrices in half precision."""
    # The meta device, on which costs are counted, has no autocast; asking about it raises an error.
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(device_type=x.device.type, enabled=False)


def product_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype in which convolutions and matrix products take ``x``: autocast's if it is on, else its own.

    Autocast leaves float64 as it is.
    """
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind) or x.dtype is torch.float64:
        return x.dtype
    return torch.get_autocast_dtype(kind)
