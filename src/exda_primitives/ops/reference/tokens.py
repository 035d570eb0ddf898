"""Token maps as the paper prints them: pooled, projected, softmax over space, upsampled."""

from __future__ import annotations

from torch import Tensor

from ..terms import TokenTerms
from ..tokens import compact_maps, projection, scaled, upsample


def token_maps(x: Tensor, heads: int, tokens: TokenTerms) -> Tensor:
    """G, (B, C, H, W) -> (B, h, K, H, W)."""
    if tokens.whole is not None:
        return tokens.whole(x)
    maps = scaled(compact_maps(x, projection(tokens), tokens.stride), tokens.scale)
    return upsample(maps, x.shape[-2:]).unflatten(1, (heads, -1))
