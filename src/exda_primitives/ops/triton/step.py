"""A residual step of a transformer block, ``x + function(norm(x))``, by few passes over the maps.

The norm is part of the product that follows it, the sum part of the product that writes the output. A gated
feed-forward is three passes: norm and 1x1 convolution, depthwise 3x3 with the gate, 1x1 convolution and sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..bare import is_bare, is_pointwise
from ..precision import product_dtype, without_autocast
from ..terms import FusedTerms, GatedTerms, NormTerms
from .channel import attention, mdta, mdta_obstacle
from .depthwise import convolution_obstacle
from .mix import mix
from .norm import layer_norm
from .norm import obstacle as norm_obstacle
from .projection import projected


def step_obstacle(x: Tensor, norm: NormTerms, function: FusedTerms | GatedTerms | None) -> str | None:
    """Why the step cannot be computed on kernels, ``function`` None standing for a module; None if it can."""
    obstacle = norm_obstacle(x, norm.weight, norm.bias)
    if obstacle is None and isinstance(function, FusedTerms):
        obstacle = mdta_obstacle(x, function)
    if obstacle is None and isinstance(function, GatedTerms):
        obstacle = _gated_obstacle(x, function)
    return obstacle


def attention_step(x: Tensor, norm: NormTerms, terms: FusedTerms) -> Tensor:
    """``x + mdta(norm(x))``, (B, C, H, W) -> (B, C, H, W)."""
    if torch.is_autocast_enabled(x.device.type):
        # There the norm and the sum have the dtype of x, the convolutions another.
        return x + mdta(layer_norm(x, *norm), terms)
    return attention(x, terms, norm, x)


def gated_step(x: Tensor, norm: NormTerms, terms: GatedTerms) -> Tensor:
    """``x + W_out (GELU(z1) * z2)``, ``z1, z2 = DW(W_in norm(x))``, (B, C, H, W) -> (B, C, H, W)."""
    if torch.is_autocast_enabled(x.device.type):
        normalised = layer_norm(x, *norm).to(product_dtype(x))
        with without_autocast(x):
            out = _gated(normalised, terms, None, None)
        return x + out
    return _gated(x, terms, norm, x)


def normalise(x: Tensor, terms: NormTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    return layer_norm(x, *terms)


def _gated(x: Tensor, terms: GatedTerms, norm: NormTerms | None, residual: Tensor | None) -> Tensor:
    first, second, last = terms
    assert is_bare(first)
    assert is_bare(second)
    assert is_bare(last)
    gated, _ = projected(x, norm, first.weight.flatten(1), first.bias, None, second.weight, second.bias, "gate")
    matrix = last.weight.flatten(1).expand(x.shape[0], -1, -1)
    shift = None if last.bias is None else last.bias.expand(x.shape[0], -1)
    out = mix([matrix], [gated.flatten(2)], shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, x.shape[2:])


def _gated_obstacle(x: Tensor, terms: GatedTerms) -> str | None:
    autocast = torch.is_autocast_enabled(x.device.type)
    for convolution in terms:
        if not (is_bare(convolution) and isinstance(convolution, nn.Conv2d)):
            return "a convolution of the feed-forward is more than that (hooked, wrapped or parametrised)"
        if convolution.weight.dtype is not x.dtype and not autocast:
            return f"the map is {x.dtype}, the feed-forward is {convolution.weight.dtype}"
    first, second, last = terms
    if not (is_pointwise(first) and is_pointwise(last)):
        return "the first or the last convolution of the feed-forward is not 1x1"
    assert isinstance(second, nn.Conv2d)
    return convolution_obstacle(second)
