"""Degradations by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from ....errors import ConfigError
from .blur import motion_blur
from .composition import CDD11, composition
from .noise import gaussian_noise
from .tensors import Degradation

DEGRADATIONS: Mapping[str, Degradation] = MappingProxyType(
    {f"noise{sigma}": partial(gaussian_noise, sigma=sigma) for sigma in (15, 25, 50)}
    | {"blur": motion_blur}
    | {name: partial(composition, name=name) for name in CDD11}
)
"""Name -> function of clean images and a generator, with all strengths drawn from their usual ranges."""


def degradation_named(name: str) -> Degradation:
    """Returns the degradation of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return DEGRADATIONS[name]
    except KeyError:
        raise ConfigError(f"no degradation is called {name!r}; there are: {', '.join(DEGRADATIONS)}") from None


def degrade(clean: Tensor, name: str, seed: int) -> Tensor:
    """Degrades images on their own device; the same seed draws the same random numbers on every device.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1]; each image of a batch is degraded differently.
        name: a key of ``DEGRADATIONS``: ``"noise15"``, ``"noise25"``, ``"noise50"``, ``"blur"``, or one of CDD-11's
            eleven, ``"low"``, ``"haze"``, ``"rain"``, ``"snow"``, ``"low_haze"``, ..., ``"low_haze_snow"``.
        seed: seed of the random numbers; only its last 32 bits count, as PyTorch's generator on the CPU takes no more.

    Returns:
        The degraded images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ConfigError: there is no such degradation.
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
        >>> import torch
        >>> clean = torch.rand(3, 48, 64)
        >>> rainy = degrade(clean, "rain", seed=1)
        >>> torch.equal(rainy, degrade(clean, "rain", seed=1)), torch.equal(rainy, degrade(clean, "rain", seed=2))
        (True, False)
    """
    return degradation_named(name)(clean, torch.Generator().manual_seed(seed))
