"""White Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from .tensors import as_batch, randn


def gaussian_noise(clean: Tensor, generator: torch.Generator, *, sigma: float) -> Tensor:
    """Adds noise: ``clean + (sigma / 255) n`` with n standard normal for each value, clipped to [0, 1].

    Source: K. Zhang et al., "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising", TIP 2017;
    sigma 15, 25 and 50 are the levels of PromptIR (Potlapalli et al., NeurIPS 2023) and of most benchmarks. Further
    steps of these benchmarks, such as rounding to 8 bits, belong to their protocols and are not done here.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the noise.
        sigma: standard deviation on a scale where white is 255.

    Returns:
        The noisy images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
        >>> import torch
        >>> grey = torch.full((3, 64, 64), 0.5)
        >>> noisy = gaussian_noise(grey, torch.Generator().manual_seed(0), sigma=25)
        >>> round(float((noisy - grey).std()) * 255)
        25
    """
    images = as_batch(clean)
    noise = randn(images.shape, generator, images).to(images.dtype)
    return (images + sigma / 255 * noise).clamp(0, 1).reshape(clean.shape)
