"""The Triton kernels where they apply, and the concat-free functions where they do not."""

from __future__ import annotations

from torch import Tensor

from . import torch as concat_free
from .terms import CrossTerms, FusedTerms
from .torch import histogram, xca

__all__ = ["cross", "histogram", "mdta", "xca"]


def mdta(x: Tensor, terms: FusedTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    # Late: Triton is there for Linux alone, and slow to import.
    from . import triton  # noqa: PLC0415

    return concat_free.mdta(x, terms) if triton.mdta_obstacle(x, terms) else triton.mdta(x, terms)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Two maps of (B, C, H, W) -> (B, C, H, W)."""
    from . import triton  # noqa: PLC0415

    return concat_free.cross(x, y, terms) if triton.cross_obstacle(x, y, terms) else triton.cross(x, y, terms)
