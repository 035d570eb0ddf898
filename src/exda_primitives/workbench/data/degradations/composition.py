"""Several degradations applied one after the other, as in CDD-11."""

from __future__ import annotations

import torch
from torch import Tensor

from .haze import haze
from .low_light import low_light
from .rain import rain
from .snow import snow
from .tensors import Degradation

PARTS: dict[str, Degradation] = {"low": low_light, "rain": rain, "snow": snow, "haze": haze}
"""The parts of CDD-11's degradations, in the order in which they are applied."""

CDD11 = (
    "low",
    "haze",
    "rain",
    "snow",
    "low_haze",
    "low_rain",
    "low_snow",
    "haze_rain",
    "haze_snow",
    "low_haze_rain",
    "low_haze_snow",
)
"""The eleven degradations of CDD-11, by the names of its folders."""


def composition(clean: Tensor, generator: torch.Generator, *, name: str) -> Tensor:
    """Applies the degradations in a name: first low light, then rain or snow, and haze in front of everything.

    Source: Y. Guo et al., "OneRestore: A Universal Restoration Framework for Composite Degradation", ECCV 2024. The
    order is that of the program that made CDD-11, whatever the order of the words. Here each part clips to [0, 1];
    in that program rain may exceed 1 until haze dims it.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: passed to each part in turn.
        name: one or several of ``PARTS``, joined by ``_``, for instance one of ``CDD11``.

    Returns:
        The degraded images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
        >>> import torch
        >>> clean = torch.rand(3, 32, 32)
        >>> both = composition(clean, torch.Generator().manual_seed(0), name="haze_rain")
        >>> one_by_one = torch.Generator().manual_seed(0)
        >>> torch.equal(both, haze(rain(clean, one_by_one), one_by_one))
        True
    """
    chosen = name.split("_")
    for part, degradation in PARTS.items():
        if part in chosen:
            clean = degradation(clean, generator)
    return clean
