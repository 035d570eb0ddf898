"""Rain streaks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .strokes import layer, stroke
from .tensors import Strength, as_batch, strength

DENSITY = (0.005, 0.02)
LENGTH = (10.0, 24.0)
ANGLE = (-math.pi / 6, math.pi / 6)
BRIGHTNESS = (0.4, 0.8)

_REACH = 14
"""Pixels from the middle of the longest streak to its end, and two more to fade."""


def rain(
    clean: Tensor,
    generator: torch.Generator,
    *,
    density: Strength = None,
    length: Strength = None,
    angle: Strength = None,
    brightness: Strength = None,
) -> Tensor:
    """Adds rain streaks: ``clean + brightness * S``, clipped to [0, 1], with the same grey S on all channels.

    S has two layers of motion-filtered noise with one direction: fine streaks far away, and rarer ones near by that
    are twice as long and wide.

    Sources: the additive model is that of W. Yang et al., "Deep Joint Rain Detection and Removal from a Single Image",
    CVPR 2017 (JORDER; Rain100L has one kind of streak per image), which OneRestore's CDD-11 adds likewise; that a
    falling drop is a motion-blurred bright streak is K. Garg and S. K. Nayar, "Vision and Rain", IJCV 2007; filtered
    noise in place of their rendered drops is how X. Fu et al., "Removing Rain from Single Images via a Deep Detail
    Network", CVPR 2017, made theirs. The ranges are this library's, chosen by eye between Rain100L and CDD-11.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: of the streaks and of the strengths that are None.
        density: streaks begun per pixel, usually in ``DENSITY``.
        length: of the fine streaks in pixels, usually in ``LENGTH``, at most 24.
        angle: radians from the vertical, usually in ``ANGLE``.
        brightness: of the brightest streaks, usually in ``BRIGHTNESS``.

    Returns:
        As ``clean``, in [0, 1]; nowhere darker than it.

    Raises:
        ImageError: if ``clean`` holds no float images.

    Example:
        >>> import torch
        >>> night = torch.zeros(3, 64, 64)
        >>> rainy = rain(night, torch.Generator().manual_seed(0), brightness=0.5)
        >>> bool(rainy.max() <= 0.5), bool((rainy[0] == rainy[2]).all())
        (True, True)
    """
    images = as_batch(clean)
    density = strength(density, DENSITY, generator, images)
    length = strength(length, LENGTH, generator, images).clamp(max=LENGTH[1])
    angle = strength(angle, ANGLE, generator, images)
    brightness = strength(brightness, BRIGHTNESS, generator, images)
    streak = stroke(length, angle, width=0.9, reach=_REACH)
    far = layer(images, generator, density=density, shape=streak, scale=1, contrast=0.8)
    near = layer(images, generator, density=density / 4, shape=streak, scale=2, contrast=1.2)
    streaks = brightness * torch.maximum(0.7 * far, near)
    return (images + streaks.to(images.dtype)).clamp(0, 1).reshape(clean.shape)
