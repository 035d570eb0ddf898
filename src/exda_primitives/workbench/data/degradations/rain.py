"""Rain streaks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .strokes import layer, stroke
from .tensors import Strength, as_batch, strength

DENSITY = (0.005, 0.02)
"""Usual number of streaks per pixel."""

LENGTH = (10.0, 24.0)
"""Usual length of a fine streak in pixels."""

ANGLE = (-math.pi / 6, math.pi / 6)
"""Usual angle from the vertical in radians."""

BRIGHTNESS = (0.4, 0.8)
"""Usual brightness of the brightest streaks, for images in [0, 1]."""

_REACH = 14
"""Half the side of a streak's kernel in pixels: half the longest streak, and two pixels to fade."""


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

    S has two layers of motion-blurred noise with one common direction: fine distant streaks, and fewer near ones that
    are twice as long and wide.

    Sources: the additive model is from W. Yang et al., "Deep Joint Rain Detection and Removal from a Single Image",
    CVPR 2017 (JORDER; Rain100L has one kind of streak per image), and OneRestore's CDD-11 uses it too. That a falling
    drop appears as a motion-blurred bright streak is from K. Garg and S. K. Nayar, "Vision and Rain", IJCV 2007.
    Filtered noise in place of their rendered drops is from X. Fu et al., "Removing Rain from Single Images via a Deep
    Detail Network", CVPR 2017. The ranges are this library's, chosen by eye between Rain100L and CDD-11.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the streaks, and each strength that is None.
        density: streaks per pixel, usually in ``DENSITY``.
        length: length of the fine streaks in pixels, usually in ``LENGTH``, at most 24.
        angle: direction in radians from the vertical, usually in ``ANGLE``.
        brightness: brightness of the brightest streaks, usually in ``BRIGHTNESS``.

    Returns:
        The rainy images, same shape and dtype as ``clean``, in [0, 1] and nowhere darker than it.

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
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
