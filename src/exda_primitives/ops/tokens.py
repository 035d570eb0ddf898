"""Global spatial tokens: h*K soft maps over the image, each a distribution over its compact pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import accumulation_dtype
from .terms import Scale, TokenTerms


def compact_maps(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Softmax over space of Phi(AvgPool(x)).

    Args:
        x: (B, C, H, W), any H, W >= 1 (pooled in ceil mode, padding not counted).
        weight: Phi, (h*K, C, 1, 1); a bias would cancel in the softmax.
        stride: kernel and stride of the pooling.

    Returns:
        (B, h*K, ceil(H/stride), ceil(W/stride)), non-negative, each map sums to 1; float32 for half types.
    """
    if stride > 1:
        x = F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)
    logits = F.conv2d(x, weight)
    return (
        logits.flatten(2).softmax(-1, dtype=accumulation_dtype(logits.dtype)).unflatten(2, logits.shape[2:])
    )


def scaled(maps: Tensor, scale: Scale) -> Tensor:
    """Compact maps as values: unchanged for ``"sum"``, times their number of pixels for ``"mean"``."""
    return maps if scale == "sum" else maps * (maps.shape[-2] * maps.shape[-1])


def upsample(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear (align_corners=False), (B, M, h, w) -> (B, M, H, W)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def unit_mean_maps(x: Tensor, tokens: TokenTerms, dtype: torch.dtype) -> tuple[Tensor, float]:
    """G of mean 1, (B, C, H, W) -> (B, h*K, H, W) in ``dtype``, and the factor that its use as a value still needs.

    Only G's direction counts for q and k, and a map that sums to 1 over a megapixel would vanish in float16; the
    factor goes into the small matrices instead.
    """
    maps = compact_maps(x, tokens.weight, tokens.stride)
    pixels = maps.shape[-2] * maps.shape[-1]
    unit_mean = upsample(scaled(maps, "mean"), x.shape[-2:])
    return unit_mean.to(dtype), 1 / pixels if tokens.scale == "sum" else 1.0
