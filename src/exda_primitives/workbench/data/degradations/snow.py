"""Falling snow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .strokes import layer, stroke
from .tensors import Strength, as_batch, strength

DENSITY = (0.005, 0.02)
"""Usual number of fine flakes per pixel."""

ANGLE = (-math.pi / 4, math.pi / 4)
"""Usual angle of the drift from the vertical in radians."""

OPACITY = (0.7, 1.0)
"""Usual opacity of the densest flakes."""

_LAYERS = ((1, 1.0, 1.5), (2, 0.5, 2.0), (4, 0.25, 2.0))
"""For each layer: scale, share of the density, width of a flake in pixels at that scale. From fine distant flakes to
fewer and larger near ones."""


def snow(
    clean: Tensor,
    generator: torch.Generator,
    *,
    density: Strength = None,
    angle: Strength = None,
    opacity: Strength = None,
) -> Tensor:
    """Covers images with white flakes: ``clean * (1 - M) + M`` with the mask M.

    M has three layers of flakes that drift in one direction. Each layer's flakes are twice as large as the previous
    one's, and more blurred, as objects near a camera are.

    Sources: Y.-F. Liu et al., "DesnowNet: Context-Aware Deep Network for Snow Removal", TIP 2018 (Snow100K), equation
    1, with a white aberration map as in OneRestore's CDD-11. Snow100K's masks were drawn by hand, in small, medium and
    large flakes; here they are filtered noise. The ranges are this library's, chosen by eye.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the flakes, and each strength that is None.
        density: fine flakes per pixel, usually in ``DENSITY``.
        angle: direction of the drift in radians from the vertical, usually in ``ANGLE``.
        opacity: opacity of the densest flakes, usually in ``OPACITY``.

    Returns:
        The snowy images, same shape and dtype as ``clean``, in [0, 1] and nowhere darker than it.

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
        >>> import torch
        >>> clean = torch.rand(3, 64, 64)
        >>> bool((snow(clean, torch.Generator().manual_seed(0)) >= clean - 1e-6).all())
        True
    """
    images = as_batch(clean)
    density = strength(density, DENSITY, generator, images)
    angle = strength(angle, ANGLE, generator, images)
    opacity = strength(opacity, OPACITY, generator, images)
    # The layers cover each other: M = opacity * (1 - product of (1 - flakes) over layers).
    clear = torch.ones_like(opacity)
    for scale, share, width in _LAYERS:
        flake = stroke(torch.full_like(angle, 1.5), angle, width=width, reach=3)
        flakes = layer(images, generator, density=share * density, shape=flake, scale=scale, contrast=1.5)
        clear = clear * (1 - flakes)
    mask = (opacity * (1 - clear)).to(images.dtype)
    return (images * (1 - mask) + mask).clamp(0, 1).reshape(clean.shape)
