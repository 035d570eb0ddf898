"""What all degradations share: the check of their input, and random numbers from the caller's generator alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ....errors import ImageError

Degradation = Callable[[Tensor, torch.Generator], Tensor]
"""Takes clean images (B, C, H, W) or (C, H, W) in [0, 1] and a generator, and returns as many degraded ones."""

Strength = float | Tensor | None
"""A number for all images, a tensor (B, 1, 1, 1) with one for each, or None: drawn for each from the usual range."""


def as_batch(clean: Tensor) -> Tensor:
    """(B, C, H, W), whether there was a batch or one image.

    Raises:
        ImageError: for anything but a float tensor (B, C, H, W) or (C, H, W) with at least one pixel.
    """
    if clean.ndim not in (3, 4) or not clean.is_floating_point() or clean.numel() == 0:
        raise ImageError(
            f"expected float images (B, C, H, W) or (C, H, W) in [0, 1], got {tuple(clean.shape)} of {clean.dtype}; "
            "bytes (H, W, C) are converted by x.permute(2, 0, 1) / 255"
        )
    return clean if clean.ndim == 4 else clean[None]


def rand(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform in [0, 1), float32, drawn where the generator is and moved to where ``like`` is."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(like.device)


def randn(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal, float32, drawn where the generator is and moved to where ``like`` is."""
    return torch.randn(*shape, generator=generator, device=generator.device).to(like.device)


def strength(value: Strength, usual: tuple[float, float], generator: torch.Generator, like: Tensor) -> Tensor:
    """One number for each image of ``like``, (B, 1, 1, 1) float32: the value given, or uniform in the usual range.

    It draws in either case, so that a strength that is given leaves all other random numbers as they were.
    """
    low, high = usual
    drawn = low + (high - low) * rand((len(like), 1, 1, 1), generator, like)
    return drawn if value is None else torch.as_tensor(value, dtype=drawn.dtype, device=drawn.device).expand_as(drawn)
