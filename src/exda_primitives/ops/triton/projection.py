"""Norm, 1x1 convolution and 3x3 depthwise convolution; backward keeps only the input and the parameters.

``y = W norm(x) + b``, ``z = activation(DW(y))``. The tokens' logits, ``Phi norm(x)``, are more rows of the same product
that skip the depthwise convolution. Compared with ``norm_pointwise`` and ``depthwise`` one after the other, backward
keeps three maps fewer where y is q, k and v, and more than five fewer where it is a gated feed-forward's hidden map.

Backward computes y again. Its gradient and that of the logits are two tensors, which are never copied into one:
``dn = W^T dy + Phi^T dlogits`` is one pass over both, dW and dPhi are one pass each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import without_autocast
from ..terms import NormTerms
from .depthwise import Activation
from .depthwise import compute as depthwise_inside
from .depthwise import unsupported_reason as depthwise_unsupported_reason
from .depthwise_backward import depthwise_gradients
from .launch import require
from .mix import weight_gradients
from .norm import layer_norm
from .norm_pointwise import compute as norm_pointwise_inside
from .norm_pointwise import fuses, norm_pointwise, norm_weight_gradients, pointwise
from .norm_pointwise import unsupported_reason as product_unsupported_reason
from .operator import differentiable, fake, operator


def unsupported_reason(
    x: Tensor,
    norm: NormTerms | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    activation: str = "none",
) -> str | None:
    """Why ``projected`` cannot be computed; None if it can. Arguments as there."""
    norm_weight, norm_bias = (None, None) if norm is None else (norm.weight, norm.bias)
    if found := product_unsupported_reason(x, norm_weight, norm_bias, weight, bias):
        return found
    if phi is not None and (found := product_unsupported_reason(x, None, None, phi, None)):
        return f"the tokens' phi: {found}"
    y = x[:, :1].expand(-1, len(weight), -1, -1)
    return depthwise_unsupported_reason(y, depthwise_weight, depthwise_bias, activation)


def projected(
    x: Tensor,
    norm: NormTerms | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    activation: Activation = "none",
) -> tuple[Tensor, Tensor | None]:
    """``activation(DW(W norm(x) + b))`` and ``Phi norm(x)``; differentiable once.

    Args:
        x: (B, C, H, W), float32, float16 or bfloat16; strides as for ``norm.layer_norm``.
        norm: layer normalisation over the channels, or None. The dtypes of all parameters may differ from that of
            ``x``.
        weight: W, (M, C).
        bias: b, (M,) or None.
        phi: the tokens' Phi, (h*K, C) or None.
        depthwise_weight: (M, 1, 3, 3).
        depthwise_bias: (M,) or None.
        activation: ``"none"``, ``"gelu"`` or ``"gate"``, as for ``depthwise.depthwise``.

    Returns:
        ``activation(DW(W norm(x) + b))``, (B, M, H, W), or (B, M/2, H, W) with the gate; and ``Phi norm(x)``,
        (B, h*K, H, W), or None without ``phi``. Both are contiguous, in the dtype of ``x``.

    Raises:
        InputError: if the kernels do not apply; ``unsupported_reason`` says why beforehand.
    """
    parameters = weight, bias, phi, depthwise_weight, depthwise_bias
    require("exda::projected", unsupported_reason(x, norm, *parameters, activation))
    z, *logits = _projected(x, *((None, None, False, None) if norm is None else norm), *parameters, activation)
    return z, logits[0] if logits else None


def _product(x: Tensor, norm: NormTerms | None, weight: Tensor) -> Tensor:
    """``W norm(x)``, (B, M, H, W); the depthwise convolution adds the bias as it reads the map."""
    return pointwise(x, weight, None) if norm is None else norm_pointwise(x, *norm, weight, None)


def compute(
    x: Tensor,
    norm: NormTerms | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    activation: str,
    valid: int | None = None,
) -> list[Tensor]:
    """Computes ``projected`` inside of an operator, without checks: [z] or, with ``phi``, [z, logits].

    If ``valid`` is not None, the maps are ``valid`` wide in longer rows (``pitch``).
    """
    # One product for both: [W; Phi] norm(x).
    rows = weight if phi is None else torch.cat([weight, phi.to(weight.dtype)])
    y = pointwise(x, rows, None) if norm is None else norm_pointwise_inside(x, *norm, rows, None)
    z = depthwise_inside(y[:, : len(weight)], depthwise_weight, depthwise_bias, activation, bias, valid)
    if phi is None:
        return [z]
    # A copy of these few channels: a view would keep all of y in memory.
    return [z, y[:, len(weight) :].clone(memory_format=torch.contiguous_format)]


@operator(
    "projected",
    "(Tensor x, Tensor? norm_weight, Tensor? norm_bias, bool subtract_mean, float? eps, Tensor weight, "
    "Tensor? bias, Tensor? phi, Tensor depthwise_weight, Tensor? depthwise_bias, str activation) -> Tensor[]",
)
def _projected(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    activation: str,
) -> list[Tensor]:
    norm = None if eps is None else NormTerms(norm_weight, norm_bias, subtract_mean, eps)
    return compute(x, norm, weight, bias, phi, depthwise_weight, depthwise_bias, activation)


@fake(_projected)
def _projected_fake(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    activation: str,
) -> list[Tensor]:
    channels = [weight.shape[0] // 2 if activation == "gate" else weight.shape[0]]
    if phi is not None:
        channels.append(phi.shape[0])
    return [torch.empty((x.shape[0], each, *x.shape[2:]), dtype=x.dtype, device=x.device) for each in channels]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, norm_weight, norm_bias, subtract_mean, eps, *parameters, ctx.activation = inputs
    ctx.normalisation = None if eps is None else (subtract_mean, eps)
    ctx.save_for_backward(x, norm_weight, norm_bias, *parameters)


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    x, norm_weight, norm_bias, weight, bias, phi, depthwise_weight, depthwise_bias = ctx.saved_tensors
    norm = None if ctx.normalisation is None else NormTerms(norm_weight, norm_bias, *ctx.normalisation)
    needed = ctx.needs_input_grad
    need_input, need_norm = any(needed[:3]), any(needed[1:3])
    # Positions as in the operator's schema: 5 and 6 weight and bias, 7 phi, 8 and 9 the depthwise weight and bias.
    need_weight, need_depthwise = any(needed[5:7]), any(needed[8:10])
    gradients: list[Tensor | None] = [None] * len(needed)
    dz, *d_logits = grads
    with without_autocast(x):
        # What W is multiplied by is `norm_of_n(n)`. Where norm and product are kernels of their own, norm(x) is
        # computed once here, for all that follows.
        n, norm_of_n = x, norm
        if norm is not None and not fuses(x):
            n, norm_of_n = layer_norm(x, *norm), None
        # DW is linear: without an activation, only the gradient of its weight depends on y's values. Else any map of
        # that size will do.
        y = _product(n, norm_of_n, weight) if need_depthwise or ctx.activation != "none" else dz
        need_y = need_input or need_weight
        dy, *gradients[8:10] = depthwise_gradients(
            dz, y, depthwise_weight, depthwise_bias, ctx.activation, need_y, need_depthwise, bias
        )
        del y
        if need_input:
            rows = [weight] if phi is None else [weight, phi]
            gradients[0], sums = _through_product(x, norm, rows, [dy, *d_logits], need_norm)
            gradients[1] = sums[0].to(norm_weight.dtype) if needed[1] else None
            gradients[2] = sums[1].to(norm_bias.dtype) if needed[2] else None
        # dW = dy norm(x)^T and, if there are tokens, dPhi = dlogits norm(x)^T
        products = [(5, weight, dy)] if need_weight else []
        products += [(7, phi, d_logits[0])] if needed[7] else []
        if products:
            positions, weights, upstream = map(list, zip(*products, strict=True))
            found = _of_weights(n, norm_of_n, upstream, weights, bias if need_weight else None)
            for position, gradient in zip([*positions, 6], found, strict=True):
                gradients[position] = gradient
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


def _through_product(
    x: Tensor, norm: NormTerms | None, rows: list[Tensor], upstream: list[Tensor], parameters: bool
) -> tuple[Tensor, Tensor]:
    """Takes the gradients of products ``rows[i] @ norm(x)`` back to x.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels, or None.
        rows: one or two matrices (O_i, C).
        upstream: gradient of each product, (B, O_i, H, W).
        parameters: whether the gradients of the norm's weight and bias are needed.

    Returns:
        The gradient of x, and those of the norm's weight and bias, (2, C), or (0, C) if not needed.
    """
    if norm is not None and len(rows) == 1 and fuses(x):
        return torch.ops.exda.norm_pointwise_input_gradient(
            upstream[0], x, norm.weight, parameters, norm.subtract_mean, norm.eps, rows[0]
        )
    # dn = sum_i rows_i^T upstream_i: one product by PyTorch, two by a kernel, in one pass over both.
    maps = [each.flatten(2) for each in upstream]
    if len(rows) == 1:
        dn = torch.bmm(rows[0].T.to(x.dtype).expand(x.shape[0], -1, -1), maps[0])
    else:
        dn = torch.ops.exda.mix_transposed([each[None] for each in rows], maps)
    dn = dn.unflatten(2, x.shape[2:])
    if norm is None:
        return dn, dn.new_empty((0, x.shape[1]))
    return torch.ops.exda.layer_norm_backward(dn, x, norm.weight, parameters, norm.subtract_mean, norm.eps)


def _of_weights(
    x: Tensor, norm: NormTerms | None, upstream: list[Tensor], weights: list[Tensor], bias: Tensor | None
) -> list[Tensor | None]:
    """Returns the gradients of matrices (O_i, C) that ``norm(x)`` was multiplied by and, last, of the first one's bias.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels, or None.
        upstream: gradient of each product, (B, O_i, H, W).
        weights: the matrices.
        bias: of the first product, (O_0,), or None.
    """
    if norm is None:
        return weight_gradients(x.flatten(2), [each.flatten(2) for each in upstream], weights, bias)
    first, of_bias = norm_weight_gradients(upstream[0], x, norm, weights[0], bias)
    rest = [
        norm_weight_gradients(dy, x, norm, weight, None)[0]
        for dy, weight in zip(upstream[1:], weights[1:], strict=True)
    ]
    return [first, *rest, of_bias]


differentiable(_projected, _differentiate, _save)
