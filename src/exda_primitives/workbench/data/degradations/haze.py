"""Haze that thickens with distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ImageError
from .tensors import Strength, as_batch, rand, strength

BETA = (1.0, 2.0)
"""Usual scattering coefficient."""

AIRLIGHT = (0.6, 0.9)
"""Usual airlight, of images in [0, 1]."""

_FARTHEST = 0.7
"""Largest depth. OneRestore limits depth to this, so that the farthest places remain visible."""

_CELLS = 4
"""Cells along each side of the coarse random map that makes the distance uneven."""


def haze(
    clean: Tensor,
    generator: torch.Generator,
    *,
    beta: Strength = None,
    airlight: Strength = None,
    depth: Tensor | None = None,
) -> Tensor:
    """Adds haze by Koschmieder's law: ``clean * t + airlight * (1 - t)``, with transmission ``t = exp(-beta * depth)``.

    Unless a depth map is given, a smooth one is made up: it grows from the bottom of the image to the top, as on open
    ground, with random unevenness. It ignores the objects in the image.

    Sources: S. G. Narasimhan and S. K. Nayar, "Vision and the Atmosphere", IJCV 2002; B. Li et al., "Benchmarking
    Single-Image Dehazing and Beyond", TIP 2019 (RESIDE; OTS and SOTS outdoor were made so, from estimated depth). The
    ranges, and depth in [0, 0.7], are those of CDD-11: Y. Guo et al., "OneRestore: A Universal Restoration Framework
    for Composite Degradation", ECCV 2024.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the made-up depth, and each strength that is None.
        beta: scattering coefficient, usually in ``BETA``; 0 means clear air.
        airlight: brightness of the haze, on all channels, usually in ``AIRLIGHT``.
        depth: (B, 1, H, W), or (1, H, W) for one image, not negative, in units of 1 / beta.

    Returns:
        The hazy images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images, or ``depth`` does not fit it.

    Examples:
        >>> import torch
        >>> black, far = torch.zeros(1, 1, 2), torch.tensor([[[0.0, 100.0]]])
        >>> haze(black, torch.Generator(), beta=1, airlight=0.75, depth=far)
        tensor([[[0.0000, 0.7500]]])
    """
    images = as_batch(clean)
    beta = strength(beta, BETA, generator, images)
    airlight = strength(airlight, AIRLIGHT, generator, images)
    if depth is None:
        depth = _made_up_depth(images, generator)
    elif depth.shape != (*clean.shape[:-3], 1, *clean.shape[-2:]):
        raise ImageError(f"a depth of shape {tuple(depth.shape)} does not fit images of {tuple(clean.shape)}")
    return behind_haze(images, beta * depth.to(beta), airlight).reshape(clean.shape)


def behind_haze(images: Tensor, optical_depth: Tensor, airlight: Tensor) -> Tensor:
    """Applies Koschmieder's law: ``images * t + airlight * (1 - t)`` with ``t = exp(-optical_depth)``.

    Args:
        images: (B, C, H, W) in [0, 1].
        optical_depth: (B, 1, H, W) float32, not negative: scattering coefficient times distance.
        airlight: (B, 1, 1, 1) in [0, 1].

    Returns:
        (B, C, H, W) in [0, 1].
    """
    # exp in float32, whatever the images' dtype.
    transmission = torch.exp(-optical_depth).to(images.dtype)
    return (images * transmission + airlight.to(images.dtype) * (1 - transmission)).clamp(0, 1)


def _made_up_depth(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a random depth map for each image, (B, 1, H, W) float32 in [0, 0.7]."""
    height, width = images.shape[-2:]
    coarse = rand((len(images), 1, _CELLS, _CELLS), generator, images)
    uneven = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    # From 1 at the top of the image, far away, to 0 at the bottom.
    ramp = torch.linspace(1, 0, height, device=images.device)[:, None]
    return _FARTHEST * (0.55 * ramp + 0.45 * uneven).clamp(0, 1)
