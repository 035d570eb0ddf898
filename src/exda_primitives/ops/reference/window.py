"""Attention between the pixels of a window (Swin) with ExDA's non-linear value: this library's extension.

``A = softmax(scale * q k^T + bias + mask)``, ``O = A V'``, per head; ``V'`` of V as a map of the window.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..layout import to_map, to_tokens
from ..precision import widen, without_autocast
from ..terms import ValueTerms, WindowTerms
from ..value import nonlinear_value


def window(x: Tensor, size: tuple[int, int], terms: WindowTerms) -> Tensor:
    """(B, N, C) -> (B, N, C): B windows of N = H*W pixels each, ``size`` is (H, W)."""
    heads, before = terms.bias.shape[0], terms.value is not None and terms.value.position == "before"
    q, k, v = terms.qkv(x).chunk(3, dim=-1)
    if terms.value is not None and before:
        v = in_the_window(v, size, terms.value)
    dtype = v.dtype
    q, k, v = (rearrange(widen(m), "b n (h c) -> b h n c", h=heads) for m in (q, k, v))
    if terms.cosine:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    with without_autocast(x):
        logits = terms.scale * (q @ k.transpose(-2, -1)) + widen(terms.bias)
        if terms.mask is not None:
            # Windows of one image follow each other: the first has the first mask, in every image.
            masks = widen(terms.mask).repeat(x.shape[0] // terms.mask.shape[0], 1, 1)
            logits = logits + masks[:, None]
        out = rearrange(logits.softmax(-1) @ v, "b h n c -> b n (h c)").to(dtype)
    if terms.value is not None and not before:
        out = in_the_window(out, size, terms.value)
    return terms.project(out)


def in_the_window(v: Tensor, size: tuple[int, int], terms: ValueTerms) -> Tensor:
    """``V'`` of V, (B, N, C) -> (B, N, C): zeros beyond the window's border, as its neighbours are not seen either."""
    return to_tokens(nonlinear_value(to_map(v, size), terms))
