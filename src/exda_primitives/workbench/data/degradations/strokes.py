"""Layers of sparse strokes along one direction, from which rain and snow are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import randn


def stroke(length: Tensor, angle: Tensor, width: float, reach: int) -> Tensor:
    """Draws a straight stroke through the middle of a square: 1 inside, fading to 0 over the last pixel all around.

    Args:
        length: (B, 1, 1, 1), pixels between the centres of its round ends.
        angle: (B, 1, 1, 1), radians from the vertical.
        width: full width at half maximum, in pixels.
        reach: pixels from the middle of the square to its sides.

    Returns:
        (B, 1, 2 * reach + 1, 2 * reach + 1) in [0, 1].
    """
    offsets = torch.arange(-reach, reach + 1, device=length.device, dtype=length.dtype)
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    along = down * torch.cos(angle) + right * torch.sin(angle)
    across = right * torch.cos(angle) - down * torch.sin(angle)
    # Distance of each pixel from the stroke's axis, a line segment.
    distance = torch.hypot(across, (along.abs() - length / 2).clamp(min=0))
    return (width / 2 + 0.5 - distance).clamp(0, 1)


def layer(
    like: Tensor, generator: torch.Generator, *, density: Tensor, shape: Tensor, scale: int, contrast: float
) -> Tensor:
    """Keeps only the peaks of normal noise, convolves them with a stroke, and enlarges the result.

    As the peaks have different heights, most strokes are faint and a few are bright.

    Args:
        like: images (B, C, H, W), for size and device.
        generator: draws the noise.
        density: (B, 1, 1, 1), strokes per pixel of the noise.
        shape: (B, 1, K, K), the stroke, see ``stroke``.
        scale: factor by which the result is enlarged; the noise is smaller than the image by this factor.
        contrast: slope of brightness over the height of a peak.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    batch, _, height, width = like.shape
    # Room for strokes whose middle is outside the image; the convolution without padding removes it again.
    margin = shape.shape[-1] - 1
    noise = randn((batch, 1, -(-height // scale) + margin, -(-width // scale) + margin), generator, like)
    # Standard normal noise exceeds this threshold with probability `density`.
    threshold = math.sqrt(2) * torch.erfinv(1 - 2 * density)
    peaks = (contrast * (noise - threshold)).clamp(0, 1)
    # One grouped convolution, images as channels: each image has its own stroke.
    strokes = F.conv2d(peaks.transpose(0, 1), shape, groups=batch).transpose(0, 1).clamp(0, 1)
    if scale > 1:
        strokes = F.interpolate(strokes, scale_factor=scale, mode="bilinear", align_corners=False)
    return strokes[..., :height, :width]
