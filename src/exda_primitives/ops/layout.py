"""Conversion between tokens (B, N, C), the pixels row by row, and maps (B, C, H, W)."""

from __future__ import annotations

from torch import Tensor


def to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W), a view."""
    return x.transpose(1, 2).unflatten(2, size)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C), contiguous, as a linear layer returns them."""
    return x.flatten(2).transpose(1, 2).contiguous()
