"""A residual step of a transformer block, ``x + function(norm(x))``, in few passes over the maps.

The norm is computed by the kernel of the product that follows it, the sum by the one that writes the output. A gated
feed-forward takes three passes: norm and 1x1 convolution, 3x3 depthwise convolution with the gate, 1x1 convolution and
sum; where ``gated_product`` applies, the last two are one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..bare import is_bare, is_pointwise
from ..precision import product_dtype, without_autocast
from ..terms import GatedTerms, NormTerms, PackedQKVTerms
from . import inference
from .channel import attention, mdta, mdta_unsupported_reason
from .depthwise import convolution_unsupported_reason
from .norm import layer_norm
from .norm import unsupported_reason as norm_unsupported_reason


def step_unsupported_reason(x: Tensor, norm: NormTerms, function: PackedQKVTerms | GatedTerms | None) -> str | None:
    """Why the step cannot be computed on kernels; None if it can.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels.
        function: an attention, a gated feed-forward, or None where a module computes it and the kernels the norm alone.
    """
    reason = norm_unsupported_reason(x, norm.weight, norm.bias)
    if reason is None and isinstance(function, PackedQKVTerms):
        reason = mdta_unsupported_reason(x, function)
    if reason is None and isinstance(function, GatedTerms):
        reason = _gated_unsupported_reason(x, function)
    return reason


def attention_step(x: Tensor, norm: NormTerms, terms: PackedQKVTerms) -> Tensor:
    """``x + mdta(norm(x))``, (B, C, H, W) -> (B, C, H, W)."""
    if torch.is_autocast_enabled(x.device.type):
        # The norm and the sum have the dtype of x, the convolutions that of autocast: three steps, not one.
        return x + mdta(layer_norm(x, *norm), terms)
    found = inference.attention_step(x, norm, terms)
    return attention(x, terms, norm, x) if found is None else found


def gated_step(x: Tensor, norm: NormTerms, terms: GatedTerms) -> Tensor:
    """``x + W_out (GELU(z1) * z2)``, ``z1, z2 = DW(W_in norm(x))``, (B, C, H, W) -> (B, C, H, W)."""
    if torch.is_autocast_enabled(x.device.type):
        normalised = layer_norm(x, *norm).to(product_dtype(x))
        with without_autocast(x):
            out = inference.gated(normalised, None, inference.parameters_of(*terms), None)
        return x + out
    found = inference.gated_step(x, norm, terms)
    return inference.gated(x, norm, inference.parameters_of(*terms), x) if found is None else found


def normalise(x: Tensor, terms: NormTerms) -> Tensor:
    """Layer normalisation over the channels of each pixel, (B, C, H, W) -> (B, C, H, W)."""
    return layer_norm(x, *terms)


def _gated_unsupported_reason(x: Tensor, terms: GatedTerms) -> str | None:
    autocast = torch.is_autocast_enabled(x.device.type)
    for convolution in terms:
        if not (is_bare(convolution) and isinstance(convolution, nn.Conv2d)):
            return "a convolution of the feed-forward has to be called (it is hooked, wrapped or parametrised)"
        if convolution.weight.dtype is not x.dtype and not autocast:
            return f"the map is {x.dtype}, the feed-forward is {convolution.weight.dtype}"
    first, second, last = terms
    if not (is_pointwise(first) and is_pointwise(last)):
        return "the first or the last convolution of the feed-forward is not 1x1"
    assert isinstance(second, nn.Conv2d)
    return convolution_unsupported_reason(second)
