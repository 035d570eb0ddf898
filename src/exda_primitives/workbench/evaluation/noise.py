"""Gaussian noise, number for number as the repositories draw it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from .protocols import NoiseRule, Protocol

_NOISE = re.compile(r"noise(\d+)")


def is_noise(degradation: str) -> bool:
    """Whether that is a name of noise, ``"noise25"``."""
    return _NOISE.fullmatch(degradation) is not None


def sigma_of(degradation: str) -> int:
    """25 of ``"noise25"``, in grey levels of 255.

    Raises:
        ConfigError: for another name.
    """
    found = _NOISE.fullmatch(degradation)
    if not found:
        raise ConfigError(f"protocols make noise of clean images, like 'noise25', not {degradation!r}")
    return int(found[1])


class Noise:
    """The noise of one run of a protocol, which must be asked for in the order of the images.

    Args:
        protocol: whose rule is followed.
        seed: of NumPy's Mersenne Twister; 0 in all repositories.

    Raises:
        ConfigError: for a protocol that adds no noise.

    Example:
        >>> import numpy as np, torch
        >>> from exda_primitives.workbench.evaluation import protocol_named
        >>> noisy = Noise(protocol_named("promptir"), seed=0).add(torch.zeros(3, 1, 1), sigma=25)
        >>> (noisy.flatten() * 255).tolist() == [44.0, 10.0, 24.0]  # 25 * 1.764, 25 * 0.400, 25 * 0.979
        True
    """

    def __init__(self, protocol: Protocol, seed: int) -> None:
        if protocol.noise is None:
            raise ConfigError(f"protocol {protocol.name!r} adds no noise to clean images; {protocol.source} has none")
        self._rule: NoiseRule = protocol.noise
        self._seed = seed
        self._random = np.random.RandomState(seed)

    def skip(self, shape: Sequence[int]) -> None:
        """Passes over an image (C, H, W) that is not wanted."""
        if self._rule.draws_all:
            self._draw(shape)

    def add(self, clean: Tensor, sigma: float) -> Tensor:
        """The noisy image.

        Args:
            clean: (C, H, W) float32 in [0, 1], cropped as the protocol says.
            sigma: standard deviation in grey levels of 255.

        Returns:
            As ``clean``; where the rule leaves it a float image, values below 0 and above 1 stay.
        """
        noise = self._draw(clean.shape)
        pixels = clean.permute(1, 2, 0).numpy()
        if self._rule.as_bytes:
            # Twice through 8 bits, as an image file is read and the noisy array is made.
            noisy = np.clip(np.rint(pixels * 255) + noise * sigma, 0, 255).astype(np.uint8).astype(np.float32) / 255
        else:
            noisy = (pixels + noise * (sigma / 255)).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(noisy.transpose(2, 0, 1)))

    def _draw(self, shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """(H, W, C)."""
        if self._rule.seeded == "each":
            self._random.seed(self._seed)
        channels, height, width = shape
        return self._random.randn(height, width, channels)
