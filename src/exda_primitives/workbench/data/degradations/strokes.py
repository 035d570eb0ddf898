"""Sparse strokes along one direction, of which rain and snow are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import randn


def stroke(length: Tensor, angle: Tensor, width: float, reach: int) -> Tensor:
    """A straight stroke through the middle of a square, 1 inside and fading to 0 over its last pixel all around.

    Args:
        length: (B, 1, 1, 1) pixels between the middles of its round ends.
        angle: (B, 1, 1, 1) radians from the vertical.
        width: pixels at half its height.
        reach: pixels from the middle of the square to its sides.

    Returns:
        (B, 1, 2 * reach + 1, 2 * reach + 1) in [0, 1].
    """
    offsets = torch.arange(-reach, reach + 1, device=length.device, dtype=length.dtype)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    along = down * torch.cos(angle) + right * torch.sin(angle)
    across = right * torch.cos(angle) - down * torch.sin(angle)
    distance = torch.hypot(across, (along.abs() - length / 2).clamp(min=0))
    return (width / 2 + 0.5 - distance).clamp(0, 1)


def layer(
    like: Tensor, generator: torch.Generator, *, density: Tensor, shape: Tensor, scale: int, contrast: float
) -> Tensor:
    """Noise of which only the peaks are kept, filtered with a stroke and enlarged.

    The peaks of normal noise have all heights: most strokes are faint and a few are bright.

    Args:
        like: images (B, C, H, W).
        generator: of the noise.
        density: (B, 1, 1, 1) strokes for each pixel of the noise.
        shape: (B, 1, K, K), see ``stroke``.
        scale: pixels of the image for each pixel of the noise, along each side.
        contrast: how steeply brightness rises with height.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    batch, _, height, width = like.shape
    # Room for strokes whose middle is outside the image.
    margin = shape.shape[-1] - 1
    noise = randn((batch, 1, -(-height // scale) + margin, -(-width // scale) + margin), generator, like)
    threshold = math.sqrt(2) * torch.erfinv(1 - 2 * density)
    peaks = (contrast * (noise - threshold)).clamp(0, 1)
    strokes = F.conv2d(peaks.transpose(0, 1), shape, groups=batch).transpose(0, 1).clamp(0, 1)
    if scale > 1:
        strokes = F.interpolate(strokes, scale_factor=scale, mode="bilinear", align_corners=False)
    return strokes[..., :height, :width]
