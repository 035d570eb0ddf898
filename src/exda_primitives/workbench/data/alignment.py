"""Measures whether a degraded image shows what its clean image shows, at the same place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

from ..shared.crops import centre

SIDE = 512
"""Longest side of the centre that is compared, in pixels."""
REACH = 16
"""Largest shift that is looked for, in pixels."""
# Of the library's degradations, motion blur moves the peak most: by 1 pixel.
TOLERANCE = 1
"""Largest shift that counts as none, in pixels."""
# Between different photographs of 512 x 512 pixels the peak was at most 0.08; chance falls with the root of the pixels.
CHANCE = 60.0
"""Divided by the root of the number of pixels: the correlation up to which a peak may be chance."""

_DETAIL, _NOISE = 0.02, 0.1
"""Frequencies in cycles per pixel: lower ones are light and haze, higher ones are noise."""


class Alignment(NamedTuple):
    """How a degraded image lies on its clean one.

    Attributes:
        down: pixels by which the degraded image is shifted downwards.
        right: pixels by which it is shifted to the right.
        correlation: normalised correlation at this shift, from -1 to 1.
        chance: correlation up to which different images may have such a peak by chance.
    """

    down: int
    right: int
    correlation: float
    chance: float

    @property
    def problem(self) -> str | None:
        """What is wrong, as text; None for a pair that is aligned."""
        # A peak at 0 is hardly chance, however low it is: severe degradations lower it.
        if max(abs(self.down), abs(self.right)) <= TOLERANCE:
            return None
        if self.correlation <= self.chance:
            return f"the two images have little in common (correlation {self.correlation:.2f})"
        return f"the degraded image is shifted by {self.down:+d} pixels downwards, {self.right:+d} to the right"


def alignment(degraded: Tensor, clean: Tensor) -> Alignment:
    """Measures the shift between two images by the peak of their normalised cross-correlation.

    The correlation is that of the grey images' details, between ``_DETAIL`` and ``_NOISE``, in whole pixels.

    Args:
        degraded: (C, H, W).
        clean: of the same shape.
    """
    height, width = (min(side, SIDE) for side in clean.shape[-2:])
    spectra = [_spectrum(image) for image in (degraded, clean)]
    frequency = fftfreq(height, dtype=torch.float64)[:, None] ** 2 + rfftfreq(width, dtype=torch.float64) ** 2
    # Band-pass: a high-pass of second order, times a Gaussian.
    band = (frequency / (frequency + _DETAIL**2)) ** 2 * torch.exp(-frequency / (2 * _NOISE**2))
    a, b = (spectrum * band.sqrt() for spectrum in spectra)
    correlation = irfft2(a * b.conj(), s=(height, width))
    # By Parseval, the norms are the roots of the autocorrelations at 0.
    power = [irfft2(each.abs() ** 2 + 0j, s=(height, width))[0, 0] for each in (a, b)]
    norm = (power[0] * power[1]).sqrt()
    chance = CHANCE / (height * width) ** 0.5
    if not norm > 0:
        # An image without details can lie anywhere; that is not the pair's fault.
        return Alignment(0, 0, 1.0, chance)
    down, right = (min(REACH, side // 4) for side in (height, width))
    near = torch.roll(correlation, (down, right), (0, 1))[: 2 * down + 1, : 2 * right + 1] / norm
    row, column = divmod(int(near.argmax()), near.shape[1])
    return Alignment(row - down, column - right, float(near[row, column]), chance)


def _spectrum(image: Tensor) -> Tensor:
    """Returns the spectrum of the grey image's centre, windowed so that its borders do not count as details."""
    grey = centre(image.double().mean(0), SIDE)
    window = (torch.hann_window(side, periodic=False, dtype=torch.float64) for side in grey.shape)
    return rfft2((grey - grey.mean()) * torch.outer(*window))
