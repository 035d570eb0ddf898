"""Too little light."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import Strength, as_batch, randn, strength

GAMMA = (2.0, 3.0)
NOISE = (0.03, 0.08)

_WINDOW = 15
"""Pixels along each side of the window over which illumination is taken to be even."""


def low_light(clean: Tensor, generator: torch.Generator, *, gamma: Strength = None, noise: Strength = None) -> Tensor:
    """Darkens the illumination and leaves the reflectance: ``R * L ** gamma + noise * n``, clipped to [0, 1].

    With ``clean = R * L`` (Retinex), where the illumination L is the largest channel, averaged over a window, and n is
    standard normal.

    Sources: the formula and both ranges are those of CDD-11: Y. Guo et al., "OneRestore: A Universal Restoration
    Framework for Composite Degradation", ECCV 2024, which estimates L by LIME (X. Guo et al., TIP 2017); the largest
    channel is LIME's first estimate, and the average stands in for its refinement.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: of the noise and of the strengths that are None.
        gamma: at least 1, where the light stays as it is; usually in ``GAMMA``.
        noise: standard deviation in [0, 1], usually in ``NOISE``.

    Returns:
        As ``clean``, in [0, 1].

    Raises:
        ImageError: if ``clean`` holds no float images.

    Example:
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
    # R L^gamma = (clean / L) L^gamma, without the division: L may be 0.
    gain = (light ** (gamma - 1)).to(images.dtype)
    grain = (noise * randn(images.shape, generator, images)).to(images.dtype)
    return (images * gain + grain).clamp(0, 1).reshape(clean.shape)
