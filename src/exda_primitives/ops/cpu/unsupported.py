"""Why a residual step or an attention cannot be computed strip by strip on the CPU, and has to call its modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..bare import is_depthwise, is_pointwise
from ..precision import product_dtype
from ..terms import GatedTerms, NormTerms, PackedQKVTerms, called_primitive
from ..torch.recompute import makes_graph, recomputes

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
# Pixels of a map from which strips of an attention by itself are faster than whole maps, by measurement.
_WORTH_STRIPS = 64 * 64
# Pixels of a map from which a step without gradients is faster than its modules, by measurement: with 192 and 384
# channels, it takes 1.1 to 1.4 times as long at 16 x 16 pixels and 0.9 times at 24 x 24.
WORTH_STEPS = 512
_PLAIN = (Tensor, nn.Parameter)


def step_unsupported_reason(x: Tensor, norm: NormTerms, function: PackedQKVTerms | GatedTerms | None) -> str | None:
    """Why the step cannot be computed strip by strip; None if it can.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels.
        function: an attention, a gated feed-forward, or None if a module computes it.
    """
    if function is None:
        return "on the CPU, the norm by itself gains nothing"
    reason = _map_unsupported_reason(x)
    if reason is None and isinstance(function, PackedQKVTerms):
        reason = _attention_unsupported_reason(function)
    elif reason is None and isinstance(function, GatedTerms):
        reason = _gated_unsupported_reason(function)
    read = parameters(norm, function)
    reason = reason or _parameter_unsupported_reason(x, read, norm[:2])
    if reason is None and x.shape[2] * x.shape[3] < WORTH_STEPS and not recomputes(x, *read):
        return f"on the CPU, the modules are faster for maps of fewer than {WORTH_STEPS} pixels"
    return reason


def takes_attention(x: Tensor, terms: PackedQKVTerms) -> bool:
    """Whether an attention outside of a fused step is computed strip by strip, and not as ``ops.torch`` does.

    Not for small maps, in float64 or with gradients: strips would save nothing there.
    """
    # First of all: under a compiler or torch.func, a condition on sizes would not be allowed.
    if _map_unsupported_reason(x) or x.dtype is torch.float64 or x.shape[2] * x.shape[3] < _WORTH_STRIPS:
        return False
    if _attention_unsupported_reason(terms):
        return False
    read = parameters(None, terms)
    return not (recomputes(x, *read) or _parameter_unsupported_reason(x, read))


def parameters(norm: NormTerms | None, function: PackedQKVTerms | GatedTerms) -> list[Tensor]:
    """Lists all parameters that a step reads, or its function alone without the norm."""
    layers: tuple[object, ...] = ()
    found: list[Tensor | None] = [] if norm is None else [norm.weight, norm.bias]
    if isinstance(function, GatedTerms):
        layers = function
    else:
        layers = *function.qkv, function.project
        found.append(function.temperature)
        if function.value is not None and function.value.branch is not None:
            found += function.value.branch
        if function.tokens is not None:
            found += [function.tokens.weight, function.tokens.alpha, function.tokens.gate]
    found += [each for layer in layers if isinstance(layer, nn.Conv2d) for each in (layer.weight, layer.bias)]
    return [each for each in found if each is not None]


def transform_reason(x: Tensor) -> str | None:
    """Why ``x`` is no plain tensor of numbers: the model is compiled, traced or transformed; None if it is plain."""
    # First, as a compiler could not trace what follows.
    if makes_graph() or type(x) not in _PLAIN:
        return "the model is compiled, traced or exported"
    # PyTorch has no public way to ask whether either transform is active.
    if forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None:
        return "torch.func transforms the model"
    return None


def _map_unsupported_reason(x: Tensor) -> str | None:
    if reason := transform_reason(x):
        return reason
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return "PyTorch's oneDNN is missing or switched off"
    if x.dim() != 4 or 0 in x.shape:
        return f"x is {tuple(x.shape)}; expected (B, C, H, W), none of them 0"
    dtype = product_dtype(x)
    if x.dtype not in _DTYPES or dtype not in _DTYPES:
        autocast = "" if dtype is x.dtype else f", autocast to {dtype}"
        return f"the dtype is {x.dtype}{autocast}; the CPU computes steps in {', '.join(map(str, _DTYPES))}"
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bfloat16 for this processor"
    return None


def _attention_unsupported_reason(terms: PackedQKVTerms) -> str | None:
    if terms.value is not None and terms.value.position == "after":
        return "the value comes after the aggregation, which is not fused on the CPU"
    if called := called_primitive(terms):
        return called
    if not (is_pointwise(terms.qkv.pointwise) and is_depthwise(terms.qkv.depthwise) and is_pointwise(terms.project)):
        return "a projection is hooked, wrapped or not a 1x1 or 3x3 depthwise convolution, and has to be called"
    return None


def _gated_unsupported_reason(terms: GatedTerms) -> str | None:
    first, second, last = terms
    if not (is_pointwise(first) and is_depthwise(second) and is_pointwise(last)):
        return "a convolution of the feed-forward is hooked, wrapped or not 1x1 or 3x3 depthwise, and has to be called"
    return None


def _parameter_unsupported_reason(
    x: Tensor, parameters: list[Tensor], norm: tuple[Tensor | None, ...] = ()
) -> str | None:
    """Why a parameter that the step reads rules it out; None if none does.

    In half precision the norm's weight and bias (``norm``) may be float32, as they often are kept.
    """
    dtype = product_dtype(x)
    if dtype is torch.bfloat16 and recomputes(x, *parameters):
        return f"gradients are required; the CPU computes steps in {dtype} without gradients only"
    # Dtypes that parameters may have: that of x and, under autocast, float32, which it casts.
    taken = (x.dtype, torch.float32) if torch.is_autocast_enabled("cpu") else (x.dtype,)
    of_norm = (*taken, torch.float32) if dtype is torch.bfloat16 else taken
    for each in parameters:
        if each.device != x.device:
            return f"x is on {x.device}, a parameter on {each.device}"
        if each.dtype not in (of_norm if any(each is own for own in norm) else taken):
            return f"the map is {x.dtype}, a parameter is {each.dtype}"
        if type(each) not in _PLAIN:
            return f"a parameter is a {type(each).__name__}, which has operations of its own"
    return None
