"""A 1x1 convolution and the 3x3 depthwise one after it; backward keeps only the input. Also the value's branch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import terms
from ..bare import is_bare, is_depthwise, is_pointwise
from ..precision import without_autocast
from ..terms import Branch, Projection, TensorFn, ValueTerms
from ..value import formed, nonlinear_value
from .recompute import as_product_takes, recomputes

# Weight and bias of the 1x1 convolution, then of the depthwise one.
Weights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def projected(x: Tensor, projection: Projection) -> Tensor:
    """Applies a projection, (B, C, H, W) -> (B, C', H, W); backward computes the first convolution's output again."""
    weights = _weights(projection)
    if weights is None or not recomputes(x, *weights):
        return terms.projected(x, projection)
    return _recomputed(x, weights)


def shared(x: Tensor, *layers: TensorFn) -> Tensor:
    """Casts ``x`` once for these layers and whatever else multiplies it, so that backward keeps one copy.

    If a layer is more than its weights, ``x`` is returned as it is.
    """
    weights = [layer.weight for layer in layers if is_bare(layer)]
    return as_product_takes(x) if len(weights) == len(layers) and recomputes(x, *weights) else x


def depthwise(u: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 depthwise convolution, zero padding 1, (B, C, H, W) -> (B, C, H, W)."""
    return F.conv2d(u, weight, bias, padding=1, groups=weight.shape[0])


def before_gelu(v: Tensor, branch: Branch) -> Tensor:
    """``DWConv3x3(Conv1x1(v))``, (B, C, H, W) -> (B, C, H, W): the value's branch as far as its GELU."""
    weights = branch.in_weight, branch.in_bias, branch.depthwise_weight, branch.depthwise_bias
    return _recomputed(v, weights) if recomputes(v, *weights) else _convolved(v, *weights)


def after_gelu(z: Tensor, branch: Branch) -> Tensor:
    """``Conv1x1(GELU(z))``, (B, C, H, W) -> (B, C, H, W): the rest of the value's branch, unfolded."""
    weight, bias = branch.out_weight, branch.out_bias
    if not recomputes(z, weight, bias):
        return _after_gelu(z, weight, bias)
    out: Tensor = _AfterGELU.apply(*(as_product_takes(x) for x in (z, weight, bias)))
    return out


def unfolded_value(v: Tensor, value: ValueTerms) -> Tensor:
    """``V'``, (B, C, H, W) -> (B, C, H, W), with nothing folded; backward keeps less than ``nonlinear_value``'s."""
    branch = value.branch
    if branch is None:
        return nonlinear_value(v, value)
    return formed(v, value.form, lambda v: after_gelu(before_gelu(v, branch), branch))


def _weights(projection: Projection) -> Weights | None:
    """Returns the weights of a bare 1x1 and a bare 3x3 depthwise convolution; None if they have to be called."""
    first, second = projection
    if is_pointwise(first) and is_depthwise(second):
        return first.weight, first.bias, second.weight, second.bias
    return None


def _recomputed(x: Tensor, weights: Weights) -> Tensor:
    # Cast out here, see `as_product_takes`.
    cast = (None if weight is None else as_product_takes(weight) for weight in weights)
    out: Tensor = _Convolved.apply(as_product_takes(x), *cast)
    return out


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, depthwise_weight: Tensor, depthwise_bias: Tensor | None
) -> Tensor:
    return depthwise(F.conv2d(x, weight, bias), depthwise_weight, depthwise_bias)


class _Convolved(torch.autograd.Function):
    """The pair of convolutions; backward computes the first one's output again."""

    generate_vmap_rule = True
    forward = staticmethod(_convolved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        *saved, _ = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, depthwise_weight = ctx.saved_tensors
        *before, need_weight, need_bias = ctx.needs_input_grad
        with without_autocast(grad):
            # The depthwise convolution is linear: only its weight's gradient depends on u's values. Where that is not
            # needed, any map of u's size will do.
            u = F.conv2d(x, weight, bias) if need_weight else grad
            groups, needed = len(depthwise_weight), (any(before), need_weight, need_bias)
            du, *depthwise = _gradients(grad, u, depthwise_weight, 1, groups, *needed)
            first = _gradients(du, x, weight, 0, 1, *before) if any(before) else (None, None, None)
        return *first, *depthwise


def _after_gelu(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.gelu(z), weight, bias)


class _AfterGELU(torch.autograd.Function):
    """GELU and the 1x1 convolution after it; backward computes GELU again."""

    generate_vmap_rule = True
    forward = staticmethod(_after_gelu)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight = ctx.saved_tensors
        dt, *others = _gradients(grad, F.gelu(z), weight, 0, 1, *ctx.needs_input_grad)
        return None if dt is None else torch.ops.aten.gelu_backward(dt, z), *others


def _gradients(
    grad: Tensor | None, x: Tensor, weight: Tensor, padding: int, groups: int, *needed: bool
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of a convolution's input, weight and bias that are needed, else None; differentiable."""
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [padding] * 2, [1, 1], False, [0, 0], groups, needed
    )
    return tuple(found)
