"""SSIM with the windows of the protocols, in float64.

Why not torchmetrics: it has neither scikit-image's sample covariance nor AMIR's border of zeros, and averages also over
pixels whose window extends beyond the image. It convolves with the square window: in float32 it is off by up to 0.002
where an image is bright and even; in float64 it takes ten times longer, and a gigabyte for an image of 1280 x 720. Here
the window is separable, one line per dimension, which avoids both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .protocols import Window

_C1, _C2 = 0.01**2, 0.03**2
_SIGMA = 1.5


def ssim(a: Tensor, b: Tensor, window: Window) -> float:
    """Returns the mean SSIM, equation 13 of Z. Wang et al., "Image Quality Assessment", TIP 2004, with its K1, K2.

    Args:
        a: image (C, H, W) float64, divided by the data range; H and W are at least the window's size.
        b: the other image, in the same form.
        window: window for means, variances and the covariance.
    """
    if window.zero_border:
        a, b = (F.pad(image, [window.size // 2] * 4) for image in (a, b))
    weights = _weights(window)
    pixels = window.size**2
    unbiased = pixels / (pixels - 1) if window.sample_covariance else 1.0
    mean_a, mean_b = _mean(a, weights), _mean(b, weights)
    # SSIM = (2 mu_a mu_b + C1) / (mu_a^2 + mu_b^2 + C1) * (2 sigma_ab + C2) / (sigma_a^2 + sigma_b^2 + C2);
    # `variances` is sigma_a^2 + sigma_b^2.
    variances = unbiased * (_mean(a * a + b * b, weights) - mean_a**2 - mean_b**2)
    covariance = unbiased * (_mean(a * b, weights) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return float((luminance * (2 * covariance + _C2) / (variances + _C2)).mean())


def _weights(window: Window) -> list[float]:
    """Returns the window's weights along one line, with sum 1; the window is their outer product."""
    if window.shape == "uniform":
        return [1 / window.size] * window.size
    offsets = torch.arange(window.size, dtype=torch.float64) - window.size // 2
    bell = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights: list[float] = (bell / bell.sum()).tolist()
    return weights


def _mean(values: Tensor, weights: list[float]) -> Tensor:
    """Returns the weighted mean over each window inside the image, (C, H, W) -> (C, H - size + 1, W - size + 1)."""
    for dim in (-2, -1):
        length = values.shape[dim] - len(weights) + 1
        total = weights[0] * values.narrow(dim, 0, length)
        for start, weight in enumerate(weights[1:], 1):
            total.add_(values.narrow(dim, start, length), alpha=weight)
        values = total
    return values
