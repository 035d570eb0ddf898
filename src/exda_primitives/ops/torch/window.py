"""Attention between the pixels of a window, by PyTorch's own fused attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..precision import widen
from ..reference.window import in_the_window
from ..terms import WindowTerms


def window(x: Tensor, size: tuple[int, int], terms: WindowTerms) -> Tensor:
    """(B, N, C) -> (B, N, C): B windows of N = H*W pixels each, ``size`` is (H, W)."""
    heads, value = terms.bias.shape[0], terms.value
    q, k, v = terms.qkv(x).chunk(3, dim=-1)
    if value is not None and value.position == "before":
        v = in_the_window(v, size, value)
    bias = terms.bias
    if terms.mask is not None:
        # (W, h, N, N), and the W windows of one image beside their heads: the fused kernels take four dimensions.
        bias = (bias + terms.mask[:, None]).flatten(0, 1)
    images = x.shape[0] // (bias.shape[0] // heads)
    q, k, v = (m.unflatten(2, (heads, -1)).transpose(1, 2).unflatten(0, (images, -1)).flatten(1, 2) for m in (q, k, v))
    if terms.cosine:
        q, k = (F.normalize(widen(m), dim=-1).to(m.dtype) for m in (q, k))
    scale = terms.scale
    if isinstance(scale, Tensor):
        # SDPA takes a number: one for each head is multiplied into q.
        q, scale = q * scale.to(q.dtype).repeat(bias.shape[0] // heads, 1, 1), 1.0
    out = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), scale=scale)
    out = out.unflatten(1, (-1, heads)).flatten(0, 1).transpose(1, 2).flatten(2)
    if value is not None and value.position == "after":
        out = in_the_window(out, size, value)
    return terms.project(out)
