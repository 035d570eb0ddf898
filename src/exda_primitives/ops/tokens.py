"""Global spatial tokens: h*K soft maps over the image, each a distribution over the pixels of a pooled, compact map."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import accumulation_dtype
from .terms import Scale, TensorFn, TokenTerms


def compact_maps(x: Tensor, phi: TensorFn, stride: int) -> Tensor:
    """Softmax over space of Phi(AvgPool(x)).

    Args:
        x: (B, C, H, W), any H, W >= 1 (pooled in ceil mode, padding not counted).
        phi: 1x1 convolution, (B, C, y, x) -> (B, h*K, y, x).
        stride: kernel and stride of the pooling.

    Returns:
        (B, h*K, ceil(H/stride), ceil(W/stride)), non-negative, each map sums to 1; float32 for half types.
    """
    return softmax_over_space(phi(pool(x, stride)))


def projection(tokens: TokenTerms) -> TensorFn:
    """Returns Phi, a 1x1 convolution, as a function; ``tokens.weight`` has to be given."""
    # Without a bias, which the softmax over space would cancel.
    assert tokens.weight is not None
    return partial(F.conv2d, weight=tokens.weight)


def pool(x: Tensor, stride: int) -> Tensor:
    """Average pooling, (B, M, H, W) -> (B, M, ceil(H/stride), ceil(W/stride)); padding is not counted."""
    return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else x


def softmax_over_space(logits: Tensor) -> Tensor:
    """Softmax over the pixels of each map, (B, M, H, W) -> (B, M, H, W); float32 for half types."""
    return logits.flatten(2).softmax(-1, dtype=accumulation_dtype(logits.dtype)).unflatten(2, logits.shape[2:])


def scaled(maps: Tensor, scale: Scale) -> Tensor:
    """Scales compact maps as values: unchanged for ``"sum"``, times their number of pixels for ``"mean"``."""
    return maps if scale == "sum" else maps * (maps.shape[-2] * maps.shape[-1])


def upsample(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear upsampling (align_corners=False), (B, M, h, w) -> (B, M, H, W)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def upsample_flat(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """``upsample``, but constant to the last bit where the upsampled map is constant.

    Beyond the centres of the outermost cells a map is constant. ``F.interpolate`` computes b * (1 - w) + b * w there,
    and a sort would order its rounding errors.
    """
    for dim, length in ((-2, size[0]), (-1, size[1])):
        # Pixel i lies at (i + 0.5) * cells / length - 0.5 between cell centres: bilinear, one dimension at a time.
        cells = maps.shape[dim]
        place = torch.arange(length, device=maps.device, dtype=maps.dtype)
        place = ((place + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)
        low = place.floor()
        weight = place - low
        left, right = low.long(), place.ceil().long()
        # Where both cells are equal, lerp returns their value exactly.
        maps = torch.lerp(
            maps.index_select(dim, left), maps.index_select(dim, right), weight if dim == -1 else weight[:, None]
        )
    return maps


def unit_mean(maps: Tensor, scale: Scale) -> tuple[Tensor, float]:
    """Scales compact maps to mean 1; also returns the factor that they are multiplied by as values.

    As q and k only a token's direction matters, and a map that sums to 1 over a megapixel would vanish in float16: the
    factor goes into the small matrices instead.

    Args:
        maps: (B, M, h, w), each summing to 1.
        scale: scale of the tokens as values.

    Returns:
        The maps, (B, M, h, w), and the factor.
    """
    return scaled(maps, "mean"), 1 / (maps.shape[-2] * maps.shape[-1]) if scale == "sum" else 1.0


def in_dtype_of(v: Tensor, maps: Tensor) -> tuple[Tensor, float | Tensor]:
    """Casts token maps to the dtype of ``v``; also returns the factor that they are multiplied by as values.

    A map that sums to 1 over a megapixel would vanish in float16, so it is divided by about its mean first: by a power
    of two, which does not change its rounding.
    """
    if maps.dtype is v.dtype:
        return maps, 1.0
    mean = maps.detach().abs().mean()
    factor = torch.where(mean == 0, 1, mean).log2().round().exp2()
    return (maps / factor).to(v.dtype), factor


class SortedTokens(NamedTuple):
    """Tokens, each sorted by its own values.

    Attributes:
        values: sorted tokens, (B, h*K, N).
        order: indices of the sort, (B, h*K, N) int64.
        scale: factor that they are multiplied by as values.
    """

    values: Tensor
    order: Tensor
    scale: float | Tensor


def sorted_tokens(x: Tensor, tokens: TokenTerms, v: Tensor) -> SortedTokens:
    """Computes the tokens of a map (B, C, H, W), in the dtype of ``v``, and sorts them for Histoformer's attention.

    They are sorted before the scale is applied, whose rounding could reorder the near ties of a plateau.
    """
    scale: float | Tensor
    if tokens.whole is not None:
        maps, scale = in_dtype_of(v, tokens.whole(x).flatten(1, 2))
    else:
        compact, scale = unit_mean(compact_maps(x, projection(tokens), tokens.stride), tokens.scale)
        maps = upsample_flat(compact, x.shape[-2:]).to(v.dtype)
    values, order = _stably_sorted(maps.flatten(2))
    return SortedTokens(values, order, scale)


def _stably_sorted(x: Tensor) -> tuple[Tensor, Tensor]:
    # Upsampled maps have plateaus, so ties are common. The ONNX exporter knows only the plain sort; it becomes TopK,
    # which is stable.
    return x.sort(dim=-1) if torch.onnx.is_in_onnx_export() else x.sort(dim=-1, stable=True)
