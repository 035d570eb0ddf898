"""The demo's degradation: haze, rain in front of it, and sensor noise, each with a random strength per image.

Compared with ``data.degradations``, haze follows the same law with another depth map, and rain is thinner. The demo's
network was trained with exactly these numbers, so they must not follow changes to ``data.degradations``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.degradations.haze import behind_haze
from ..data.degradations.tensors import as_batch, rand, randn, strength

_STREAK_MARGIN = 12
"""Half the longest streak in pixels: a streak is visible if its middle is at most this far outside the image."""

_STREAK_HALF_WIDTH = 0.9
"""Distance in pixels from a streak's axis at which it has faded to 0."""

_DEPTH_CELLS = 3
"""Cells along each side of the coarse random map that makes the depth uneven."""


def mixed(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Adds haze, then rain in front of it, then sensor noise; clips to [0, 1] after each.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws all random numbers; one on the CPU gives the same numbers for every device of ``clean``.

    Returns:
        The degraded images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images.
    """
    images = as_batch(clean)

    def drawn(low: float, high: float) -> Tensor:
        return strength(None, (low, high), generator, images)

    thickness, airlight = drawn(0.3, 1.2), drawn(0.75, 0.95)
    hazy = behind_haze(images, thickness * made_up_depth(images, generator), airlight)
    density, brightness = drawn(0.002, 0.008), drawn(0.2, 0.5)
    length, angle = drawn(10.0, 24.0), drawn(-math.pi / 6, math.pi / 6)
    streaks = brightness * thin_rain(images, generator, density=density, length=length, angle=angle)
    rainy = (hazy + streaks.to(images.dtype)).clamp(0, 1)
    sigma = drawn(5 / 255, 25 / 255)
    noise = sigma * randn(images.shape, generator, images)
    noisy = (rainy + noise.to(images.dtype)).clamp(0, 1)
    # Not by reshape: a batch of one would lose its channels-last strides, and then convolutions round differently.
    return noisy if clean.ndim == 4 else noisy[0]


def made_up_depth(images: Tensor, generator: torch.Generator) -> Tensor:
    """Makes up a depth: a ramp from 0.3 at the bottom (near) to 1 at the top (far), plus a smooth random map of ±0.3.

    Args:
        images: (B, C, H, W); only their shape and device are used.
        generator: draws the random map.

    Returns:
        (B, 1, H, W) float32, not negative.
    """
    height, width = images.shape[-2:]
    coarse = rand((len(images), 1, _DEPTH_CELLS, _DEPTH_CELLS), generator, images)
    uneven = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    ramp = torch.linspace(1.0, 0.3, height, device=images.device)[:, None]
    return (ramp + 0.6 * (uneven - 0.5)).clamp(min=0)


def thin_rain(images: Tensor, generator: torch.Generator, *, density: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    """Draws sparse drops of random brightness, motion-blurred along one direction per image.

    Source: the usual synthetic data sets were drawn by noise and a directional blur, e.g. X. Fu et al., "Removing Rain
    from Single Images via a Deep Detail Network", CVPR 2017.

    Args:
        images: (B, C, H, W); only their shape and device are used.
        generator: draws the drops.
        density: (B, 1, 1, 1), drops per pixel.
        length: (B, 1, 1, 1), length of the streaks in pixels; above 24 they are cut off.
        angle: (B, 1, 1, 1), radians from the vertical.

    Returns:
        (B, 1, H, W) float32: 1 in the middle of the brightest streak, more where streaks cross.
    """
    batch, _, height, width = images.shape
    size = (2, batch, 1, height + 2 * _STREAK_MARGIN, width + 2 * _STREAK_MARGIN)
    chance, brightness = rand(size, generator, images)
    drops = (chance < density) * (0.4 + 0.6 * brightness)
    # One grouped convolution, images as channels: each image has its own kernel. No padding: it removes the margin.
    return F.conv2d(drops.transpose(0, 1), _streak_kernels(angle, length), groups=batch).transpose(0, 1)


def _streak_kernels(angle: Tensor, length: Tensor) -> Tensor:
    """Draws a line segment through the middle of a square, (B, 1, K, K): peak 1, fading to 0 within a pixel across."""
    offsets = torch.arange(-_STREAK_MARGIN, _STREAK_MARGIN + 1, device=angle.device, dtype=angle.dtype)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    along = down * torch.cos(angle) + right * torch.sin(angle)
    across = right * torch.cos(angle) - down * torch.sin(angle)
    # The ends fade over one pixel too, so that a length need not be a whole number.
    inside = (length / 2 - along.abs() + 0.5).clamp(0, 1)
    return inside * (1 - across.abs() / _STREAK_HALF_WIDTH).clamp(min=0)
