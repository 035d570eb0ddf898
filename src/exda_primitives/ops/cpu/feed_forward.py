"""Restormer's gated feed-forward as a residual step on the CPU, strip by strip."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..bare import is_bare
from ..precision import product_dtype, without_autocast
from ..terms import GatedTerms, NormTerms
from ..torch.recompute import recomputes
from .layers import convolved, gelu, normalised, padded, pairs, pointwise
from .layout import add_into, channels_last, empty
from .strips import strips

# oneDNN's vectors hold 16 channels: its depthwise convolution takes twice as long if their number is no multiple of it.
_LANES = 16


def gated_step(x: Tensor, norm: NormTerms, terms: GatedTerms, like: Tensor | None = None) -> Tensor:
    """``x + W_out (GELU(z1) * z2)``, ``z1, z2 = DW(W_in norm(x))``, (B, C, H, W) -> (B, C, H, W).

    The output has the layout of ``like``, contiguous or channels_last; channels_last without it, and if autograd
    records.
    """
    first, second, last = terms
    assert is_bare(last)
    x = channels_last(x)
    hidden = last.weight.shape[1]
    gate, value = pairs(first, second, 2)
    if recomputes(x, *norm[:2], *gate, *value, last.weight, last.bias):
        n = normalised(x, norm)
        return x + pointwise(gelu(convolved(n, gate)) * convolved(n, value), last.weight, last.bias)
    # Hidden channels padded with zeros to a multiple of the vector's length: GELU(0) * 0 = 0 adds nothing.
    wide = -(-hidden // _LANES) * _LANES
    if x[:, 0].numel() < _LANES * hidden:
        # For so few pixels, padding the weights would take longer than it saves.
        wide = hidden
    gate, value = padded(gate, wide), padded(value, wide)
    weight = F.pad(last.weight, (0, 0, 0, 0, 0, wide - hidden)) if wide > hidden else last.weight
    out, dtype = empty(x, like), product_dtype(x)
    with without_autocast(x):
        for strip in strips(x, 2 * wide):
            images, rows = strip.images, strip.rows()
            n, own = normalised(x[images, :, strip.rows(1)], norm).to(dtype), strip.rows_in(1)
            gated = gelu(convolved(n, gate, own)).mul_(convolved(n, value, own))
            add_into(out[images, :, rows], x[images, :, rows], pointwise(gated, weight, last.bias))
    return out
