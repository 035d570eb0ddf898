"""Whole residual steps of a transformer block without gradients, one operator each, recorded and replayed.

One operator per step keeps the calls of PyTorch's dispatcher few; ``recorded`` spares the checks and the derivation of
sizes. Maps whose rows are not aligned are computed in longer rows, see ``pitch``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..bare import is_depthwise, is_pointwise, tensor_of
from ..terms import Branch, GatedTerms, NormTerms, PackedQKVTerms, Scale, TokenTerms, ValueForm, ValueTerms
from ..torch.fold import foldable_weight
from . import gated_product, norm_pointwise
from .channel import attention_output
from .mix import mix
from .operator import differentiable_no_more, fake, operator
from .pitch import in_long_rows, pitch
from .projection import compute as project_inside
from .projection import projected
from .recorded import Recorded

_Parameters = list[Tensor | None]


def attention_step(x: Tensor, norm: NormTerms, terms: PackedQKVTerms) -> Tensor | None:
    """``x + mdta(norm(x))``, (B, C, H, W); None if gradients are required or a layer is more than its weights."""
    first, second = terms.qkv
    weight, bias = foldable_weight(terms)
    if weight is None or not (is_pointwise(first) and is_depthwise(second)):
        return None
    value, tokens = terms.value, terms.tokens
    branch = None if value is None else value.branch
    of_tokens: tuple[Tensor | None, ...] = (None,) * 3 if tokens is None else (tokens.weight, tokens.alpha, tokens.gate)
    parameters: _Parameters = [
        norm.weight,
        norm.bias,
        *parameters_of(first, second),
        *(terms.temperature, weight, bias),
        *of_tokens,
        *((None,) * 6 if branch is None else branch),
    ]
    if _requires_gradients(x, parameters):
        return None
    options = (1, "none", "mean") if tokens is None else (tokens.stride, tokens.scale, tokens.reinject)
    form = "" if value is None else value.form
    return _attention_step(x, parameters, norm.subtract_mean, norm.eps, form, *options)


def gated_step(x: Tensor, norm: NormTerms, terms: GatedTerms) -> Tensor | None:
    """``x + W_out (GELU(z1) * z2)``, ``z1, z2 = DW(W_in norm(x))``, (B, C, H, W); None if gradients are required."""
    parameters = [norm.weight, norm.bias, *parameters_of(*terms)]
    if _requires_gradients(x, parameters):
        return None
    return _gated_step(x, parameters, norm.subtract_mean, norm.eps)


def parameters_of(*layers: object) -> _Parameters:
    """Returns weight and bias of each of these layers, one after the other; all have to be bare (``bare``)."""
    found: _Parameters = []
    for layer in layers:
        assert isinstance(layer, nn.Module)
        found += [tensor_of(layer, "weight"), tensor_of(layer, "bias")]
    return found


def gated(x: Tensor, norm: NormTerms | None, parameters: Iterable[Tensor | None], residual: Tensor | None) -> Tensor:
    """``W_out (GELU(z1) * z2) + residual``, ``z1, z2 = DW(W_in norm(x))``, (B, C, H, W); differentiable.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels, or None.
        parameters: weights of W_in, DW and W_out, each followed by its bias or None.
        residual: (B, C, H, W) or None.
    """
    weight, bias, depthwise_weight, depthwise_bias, out_weight, out_bias = parameters
    assert weight is not None
    assert depthwise_weight is not None
    z, _ = projected(x, norm, weight.flatten(1), bias, None, depthwise_weight, depthwise_bias, "gate")
    return _through_output(z, out_weight, out_bias, residual)


def _gated_inside(
    x: Tensor, norm: NormTerms, parameters: Iterable[Tensor | None], residual: Tensor, valid: int | None
) -> Tensor:
    """Computes ``gated`` inside of an operator, without gradients.

    If ``valid`` is not None, the maps are ``valid`` wide in longer rows (``pitch``).
    """
    weight, bias, depthwise_weight, depthwise_bias, out_weight, out_bias = parameters
    assert weight is not None
    assert depthwise_weight is not None
    assert out_weight is not None
    if gated_product.applies(x, len(out_weight)):
        # W_in's bias is not added to y here, but by the next kernel as it reads y (`shift`).
        y = norm_pointwise.compute(x, *norm, weight.flatten(1), None)
        output_arguments = out_weight.flatten(1), out_bias, residual, valid
        return gated_product.compute(y, depthwise_weight, depthwise_bias, bias, *output_arguments)
    (z,) = project_inside(x, norm, weight.flatten(1), bias, None, depthwise_weight, depthwise_bias, "gate", valid)
    return _through_output(z, out_weight, out_bias, residual)


def _through_output(z: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """``W_out z + b + residual``, the last convolution of a feed-forward and the residual in one pass."""
    assert weight is not None
    matrix = weight.flatten(1).expand(z.shape[0], -1, -1)
    shift = None if bias is None else bias.expand(z.shape[0], -1)
    out = mix([matrix], [z.flatten(2)], shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, z.shape[2:])


def _requires_gradients(x: Tensor, parameters: Iterable[Tensor | None]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(each.requires_grad for each in parameters if each is not None)


# For `Recorded`: the map and all parameters come in one tuple, in the order in which the steps above collect them.
def _attention(
    tensors: tuple[Any, ...],
    subtract_mean: bool,
    eps: float,
    form: ValueForm,
    stride: int,
    scale: Scale,
    reinject: Any,
) -> Tensor:
    given, norm_weight, norm_bias, qkv, qkv_bias, depthwise, depthwise_bias, temperature, left, bias, *rest = tensors
    x, valid = _in_long_rows(given)
    phi, alpha, gate, *branch = rest
    tokens = None if phi is None else TokenTerms(phi, stride, scale, reinject, alpha, gate)
    value = ValueTerms(form, "before", None if branch[0] is None else Branch(*branch)) if form else None
    norm = NormTerms(norm_weight, norm_bias, subtract_mean, eps)
    rows = None if phi is None else phi.flatten(1)
    # z = DW(W_qkv norm(x)), and logits = Phi norm(x) as more rows of the same product.
    z, *logits = project_inside(x, norm, qkv.flatten(1), qkv_bias, rows, depthwise, depthwise_bias, "none", valid)
    out = attention_output([z], logits[0] if logits else None, temperature, value, tokens, left, bias, x, valid)
    return out if valid is None else out[..., :valid]


def _gated(tensors: tuple[Any, ...], subtract_mean: bool, eps: float) -> Tensor:
    given, norm_weight, norm_bias, *parameters = tensors
    x, valid = _in_long_rows(given)
    out = _gated_inside(x, NormTerms(norm_weight, norm_bias, subtract_mean, eps), parameters, x, valid)
    return out if valid is None else out[..., :valid]


def _in_long_rows(x: Tensor) -> tuple[Tensor, int | None]:
    """Returns ``x`` in aligned rows and, if these are longer than ``x`` is wide, its width, else None."""
    rows = in_long_rows(x)
    return rows, None if rows is x else x.shape[3]


recorded_attention, recorded_gated = Recorded(_attention), Recorded(_gated)


@operator(
    "attention_step",
    "(Tensor x, Tensor?[] parameters, bool subtract_mean, float eps, str form, int stride, str scale, str reinject)"
    " -> Tensor",
)
def _attention_step(x: Tensor, parameters: _Parameters, *options: Any) -> Tensor:
    return recorded_attention((x, *parameters), *options)


@operator("gated_step", "(Tensor x, Tensor?[] parameters, bool subtract_mean, float eps) -> Tensor")
def _gated_step(x: Tensor, parameters: _Parameters, *options: Any) -> Tensor:
    return recorded_gated((x, *parameters), *options)


@fake(_attention_step)
@fake(_gated_step)
def _empty_output(x: Tensor, parameters: _Parameters, *options: Any) -> Tensor:
    # With the strides of the output, too, which is cut out of longer rows.
    shape = (*x.shape[:3], pitch(x.shape[3]))
    return torch.empty(shape, dtype=x.dtype, device=x.device)[..., : x.shape[3]]


differentiable_no_more(_attention_step)
differentiable_no_more(_gated_step)
