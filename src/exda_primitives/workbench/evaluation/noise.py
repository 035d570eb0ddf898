"""Gaussian noise with exactly the numbers that the repositories draw."""

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
    """Returns whether a name is that of noise, such as ``"noise25"``."""
    return _NOISE.fullmatch(degradation) is not None


def sigma_of(degradation: str) -> int:
    """Returns the standard deviation in a name, 25 for ``"noise25"``, on a scale where white is 255.

    Raises:
        ConfigError: the name is not one of noise.
    """
    found = _NOISE.fullmatch(degradation)
    if not found:
        raise ConfigError(f"protocols add only noise like 'noise25' to clean images, not {degradation!r}")
    return int(found[1])


class Noise:
    """The noise of one run of a protocol; ask for it in the order of the images.

    Args:
        protocol: the protocol whose rule is followed.
        seed: seed of NumPy's Mersenne Twister; 0 in all repositories.

    Raises:
        ConfigError: the protocol adds no noise.

    Examples:
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
        """Skips an image of shape (C, H, W) that is not evaluated."""
        if self._rule.draws_all:
            self._draw(shape)

    def add(self, clean: Tensor, sigma: float) -> Tensor:
        """Returns the noisy image.

        Args:
            clean: (C, H, W) float32 in [0, 1], cropped as the protocol says.
            sigma: standard deviation on a scale where white is 255.

        Returns:
            (C, H, W) float32; if the rule keeps floats, values below 0 and above 1 remain.
        """
        noise = self._draw(clean.shape)
        pixels = clean.permute(1, 2, 0).numpy()
        if self._rule.as_bytes:
            # To 8 bits twice, as in the repositories: the clean image is rounded, the noisy one loses its fractions.
            noisy = np.clip(np.rint(pixels * 255) + noise * sigma, 0, 255).astype(np.uint8).astype(np.float32) / 255
        else:
            noisy = (pixels + noise * (sigma / 255)).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(noisy.transpose(2, 0, 1)))

    def _draw(self, shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Draws standard normal numbers, (H, W, C), for an image of shape (C, H, W)."""
        if self._rule.seeded == "each":
            self._random.seed(self._seed)
        channels, height, width = shape
        return self._random.randn(height, width, channels)
