"""Falling snow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .strokes import layer, stroke
from .tensors import Strength, as_batch, strength

DENSITY = (0.005, 0.02)
ANGLE = (-math.pi / 4, math.pi / 4)
OPACITY = (0.7, 1.0)

_LAYERS = ((1, 1.0, 1.5), (2, 0.5, 2.0), (4, 0.25, 2.0))
"""Scale, density and width in pixels of that scale: fine flakes far away, and ever fewer and larger ones near by."""


def snow(
    clean: Tensor,
    generator: torch.Generator,
    *,
    density: Strength = None,
    angle: Strength = None,
    opacity: Strength = None,
) -> Tensor:
    """Covers with white flakes: ``clean * (1 - M) + M``.

    M has three layers of flakes, each twice as large as the one before, blurred with their size as what is near a
    camera is, and drifting along one direction.

    Sources: Y.-F. Liu et al., "DesnowNet: Context-Aware Deep Network for Snow Removal", TIP 2018 (Snow100K), equation
    1, with a white aberration map as in OneRestore's CDD-11. Snow100K's masks were drawn by hand, in small, medium and
    large flakes; here they are filtered noise. The ranges are this library's, chosen by eye.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: of the flakes and of the strengths that are None.
        density: fine flakes per pixel, usually in ``DENSITY``.
        angle: of their drift, radians from the vertical, usually in ``ANGLE``.
        opacity: of the densest flakes, usually in ``OPACITY``.

    Returns:
        As ``clean``, in [0, 1]; nowhere darker than it.

    Raises:
        ImageError: if ``clean`` holds no float images.

    Example:
        >>> import torch
        >>> clean = torch.rand(3, 64, 64)
        >>> bool((snow(clean, torch.Generator().manual_seed(0)) >= clean - 1e-6).all())
        True
    """
    images = as_batch(clean)
    density = strength(density, DENSITY, generator, images)
    angle = strength(angle, ANGLE, generator, images)
    opacity = strength(opacity, OPACITY, generator, images)
    clear = torch.ones_like(opacity)
    for scale, share, width in _LAYERS:
        flake = stroke(torch.full_like(angle, 1.5), angle, width=width, reach=3)
        flakes = layer(images, generator, density=share * density, shape=flake, scale=scale, contrast=1.5)
        clear = clear * (1 - flakes)
    mask = (opacity * (1 - clear)).to(images.dtype)
    return (images * (1 - mask) + mask).clamp(0, 1).reshape(clean.shape)
