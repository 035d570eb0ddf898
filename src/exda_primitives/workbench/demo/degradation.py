"""Seeded weather and sensor noise for photographs: haze, rain and Gaussian noise, each per image of a batch.

Every function takes and returns (B, 3, H, W) floats in [0, 1] and draws only from the generator it is given, on that
generator's device, so that a CPU generator gives the same degradation whatever device the image is on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_STREAK_MARGIN = 12
"""Half the longest streak, in pixels: how far outside the image a streak may start and still be seen."""

_STREAK_HALF_WIDTH = 0.9
"""Distance from a streak's axis, in pixels, at which it has faded to nothing."""

_DEPTH_CELLS = 3
"""Cells along each side of the coarse random map that makes the depth of a scene uneven."""


def _check(clean: Tensor) -> None:
    if clean.ndim != 4 or clean.shape[1] != 3 or not clean.is_floating_point():
        raise ValueError(
            f"expected a float image batch of shape (B, 3, H, W) in [0, 1], got {tuple(clean.shape)} of "
            f"{clean.dtype}; images as bytes are converted by x.permute(0, 3, 1, 2) / 255"
        )


def _uniform(clean: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number per image, (B, 1, 1, 1), uniform in [low, high)."""
    drawn = torch.rand(clean.shape[0], 1, 1, 1, generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(clean)


def gaussian_noise(clean: Tensor, generator: torch.Generator, sigma: float | Tensor) -> Tensor:
    """Add white Gaussian noise: ``clean + sigma * n``, clipped to [0, 1].

    Source: the usual degradation of denoising benchmarks, e.g. Zhang et al., "Beyond a Gaussian Denoiser: Residual
    Learning of Deep CNN for Image Denoising", TIP 2017.

    Args:
        clean: (B, 3, H, W) in [0, 1].
        generator: where the noise comes from.
        sigma: standard deviation on the [0, 1] scale (25 of 255 grey levels: 25/255); a number or (B, 1, 1, 1).

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: if ``clean`` is not a float (B, 3, H, W).
    """
    _check(clean)
    noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
    return (clean + sigma * noise).clamp(0, 1)


def _streak_kernels(angle: Tensor, length: Tensor) -> Tensor:
    """Line segments through the middle of a square, (B, 1, K, K), peak 1, fading across within a pixel or so.

    Args:
        angle: (B, 1, 1, 1), radians from the vertical.
        length: (B, 1, 1, 1), pixels.
    """
    offsets = torch.arange(-_STREAK_MARGIN, _STREAK_MARGIN + 1, device=angle.device, dtype=angle.dtype)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    along = down * torch.cos(angle) + right * torch.sin(angle)
    across = right * torch.cos(angle) - down * torch.sin(angle)
    # The ends fade over one pixel too, so that a length need not be a whole number.
    inside = (length / 2 - along.abs() + 0.5).clamp(0, 1)
    return inside * (1 - across.abs() / _STREAK_HALF_WIDTH).clamp(min=0)


def rain(
    clean: Tensor,
    generator: torch.Generator,
    *,
    density: float | Tensor,
    strength: float | Tensor,
    length: float | Tensor,
    angle: float | Tensor,
) -> Tensor:
    """Add rain streaks: ``clean + strength * S``, clipped to [0, 1], with the same grey S on all channels.

    S is sparse random drops of random brightness, motion-blurred along one direction per image.

    Sources: the additive model is that of Li et al., "Rain Streak Removal Using Layer Priors", CVPR 2016; noise
    followed by a directional blur is how the usual synthetic sets were drawn, e.g. Fu et al., "Removing Rain from
    Single Images via a Deep Detail Network", CVPR 2017.

    Args:
        clean: (B, 3, H, W) in [0, 1].
        generator: where the drops come from.
        density: drops per pixel; a number or (B, 1, 1, 1), as are all below.
        strength: brightness of the brightest drop's streak on the [0, 1] scale.
        length: length of the streaks in pixels, at most 24; longer ones are cut there.
        angle: direction in radians from the vertical.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: if ``clean`` is not a float (B, 3, H, W).
    """
    _check(clean)
    batch, _, height, width = clean.shape
    size = (2, batch, 1, height + 2 * _STREAK_MARGIN, width + 2 * _STREAK_MARGIN)
    chance, brightness = torch.rand(size, generator=generator, device=generator.device).to(clean)
    drops = (chance < density) * (0.4 + 0.6 * brightness)
    per_image = clean.new_ones(batch, 1, 1, 1)
    kernels = _streak_kernels(angle * per_image, length * per_image)
    streaks = F.conv2d(drops.transpose(0, 1), kernels, groups=batch).transpose(0, 1)
    return (clean + strength * streaks).clamp(0, 1)


def haze(clean: Tensor, generator: torch.Generator, *, thickness: float | Tensor, airlight: float | Tensor) -> Tensor:
    """Put a scene behind haze: ``clean * t + airlight * (1 - t)`` with ``t = exp(-thickness * d)``.

    There is no depth d to go by, so one is made up: a ramp from 0.3 at the bottom (near) to 1 at the top (far), plus
    a smooth random map of up to 0.3 either way.

    Source: atmospheric scattering (Koschmieder's law) as in Narasimhan and Nayar, "Vision and the Atmosphere", IJCV
    2002, and He et al., "Single Image Haze Removal Using Dark Channel Prior", CVPR 2009.

    Args:
        clean: (B, 3, H, W) in [0, 1].
        generator: where the uneven part of the depth comes from.
        thickness: scattering coefficient times depth at the top of the picture, 0 for clear air; a number or
            (B, 1, 1, 1).
        airlight: colour of the haze in [0, 1]; a number, (B, 1, 1, 1) or (B, 3, 1, 1).

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: if ``clean`` is not a float (B, 3, H, W).
    """
    _check(clean)
    batch, _, height, width = clean.shape
    cells = (batch, 1, _DEPTH_CELLS, _DEPTH_CELLS)
    coarse = torch.rand(cells, generator=generator, device=generator.device).to(clean)
    uneven = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    ramp = torch.linspace(1.0, 0.3, height, device=clean.device, dtype=clean.dtype)[:, None]
    depth = (ramp + 0.6 * (uneven - 0.5)).clamp(min=0)
    transmission = torch.exp(-thickness * depth)
    return (clean * transmission + airlight * (1 - transmission)).clamp(0, 1)


def mixed(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Haze, then rain in front of it, then the sensor's noise, each of a random strength per image.

    Args:
        clean: (B, 3, H, W) in [0, 1].
        generator: where the strengths and everything else come from.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: if ``clean`` is not a float (B, 3, H, W).
    """
    hazy = haze(
        clean,
        generator,
        thickness=_uniform(clean, generator, 0.3, 1.2),
        airlight=_uniform(clean, generator, 0.75, 0.95),
    )
    rainy = rain(
        hazy,
        generator,
        density=_uniform(clean, generator, 0.002, 0.008),
        strength=_uniform(clean, generator, 0.2, 0.5),
        length=_uniform(clean, generator, 10.0, 24.0),
        angle=_uniform(clean, generator, -math.pi / 6, math.pi / 6),
    )
    return gaussian_noise(rainy, generator, sigma=_uniform(clean, generator, 5 / 255, 25 / 255))
