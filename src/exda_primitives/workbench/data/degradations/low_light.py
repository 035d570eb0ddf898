"""Low light."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import Strength, as_batch, randn, strength

GAMMA = (2.0, 3.0)
"""Usual exponent of the illumination."""

NOISE = (0.03, 0.08)
"""Usual standard deviation of the noise, for images in [0, 1]."""

_WINDOW = 15
"""Side in pixels of the window that the illumination is averaged over."""


def low_light(clean: Tensor, generator: torch.Generator, *, gamma: Strength = None, noise: Strength = None) -> Tensor:
    """Darkens the illumination but not the reflectance: ``R * L ** gamma + noise * n``, clipped to [0, 1].

    Here ``clean = R * L`` (Retinex): R is the reflectance, the illumination L is the maximum over channels averaged
    over a window, and n is standard normal noise.

    Sources: the formula and both ranges are those of CDD-11: Y. Guo et al., "OneRestore: A Universal Restoration
    Framework for Composite Degradation", ECCV 2024, which estimates L by LIME (X. Guo et al., TIP 2017); the largest
    channel is LIME's first estimate, and the average stands in for its refinement.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the noise, and each strength that is None.
        gamma: exponent, at least 1, usually in ``GAMMA``; 1 leaves the light unchanged.
        noise: standard deviation of the noise, in [0, 1], usually in ``NOISE``.

    Returns:
        The dark images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
        >>> import torch
        >>> grey = torch.full((3, 8, 8), 0.5)
        >>> float(low_light(grey, torch.Generator(), gamma=3, noise=0).mean())
        0.125
    """
    images = as_batch(clean)
    gamma = strength(gamma, GAMMA, generator, images)
    noise = strength(noise, NOISE, generator, images)
    brightest = images.amax(1, keepdim=True).float()
    light = F.avg_pool2d(brightest, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
    # R L^gamma = (clean / L) L^gamma = clean L^(gamma - 1): no division, as L may be 0.
    gain = (light ** (gamma - 1)).to(images.dtype)
    grain = (noise * randn(images.shape, generator, images)).to(images.dtype)
    return (images * gain + grain).clamp(0, 1).reshape(clean.shape)
