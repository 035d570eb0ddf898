"""Helpers of all degradations: a check of the input, and random numbers from the caller's generator only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ....errors import ImageError

Degradation = Callable[[Tensor, torch.Generator], Tensor]
"""Takes clean images (B, C, H, W) or (C, H, W) in [0, 1] and a generator; returns degraded images of the same shape."""

Strength = float | Tensor | None
"""One number for all images, a tensor (B, 1, 1, 1) with one per image, or None to draw each from the usual range."""


def as_batch(clean: Tensor) -> Tensor:
    """Returns images as (B, C, H, W); a single image (C, H, W) becomes a batch of one.

    Raises:
        ImageError: the input is not a float tensor (B, C, H, W) or (C, H, W) with at least one pixel.
    """
    if clean.ndim not in (3, 4) or not clean.is_floating_point() or clean.numel() == 0:
        raise ImageError(
            f"expected float images (B, C, H, W) or (C, H, W) in [0, 1], got {tuple(clean.shape)} of {clean.dtype}; "
            "bytes (H, W, C) are converted by x.permute(2, 0, 1) / 255"
        )
    return clean if clean.ndim == 4 else clean[None]


def rand(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws float32 numbers uniform in [0, 1) on the generator's device, and moves them to that of ``like``."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(like.device)


def randn(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draws standard normal float32 numbers on the generator's device, and moves them to that of ``like``."""
    return torch.randn(*shape, generator=generator, device=generator.device).to(like.device)


def strength(value: Strength, usual: tuple[float, float], generator: torch.Generator, like: Tensor) -> Tensor:
    """Returns one strength per image of ``like``, (B, 1, 1, 1) float32: the given value, or uniform in the usual range.

    It draws in both cases, so that a given strength does not change the other random numbers.
    """
    low, high = usual
    drawn = low + (high - low) * rand((len(like), 1, 1, 1), generator, like)
    return drawn if value is None else torch.as_tensor(value, dtype=drawn.dtype, device=drawn.device).expand_as(drawn)
