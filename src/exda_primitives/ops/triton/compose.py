"""A 1x1 convolution folded into the matrix that follows it: ``M (W x + b) + bias = (M W) x + (M b + bias)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from .compose_backward import compose_backward_kernel
from .fold_kernels import compose_kernel
from .launch import (
    contiguous,
    device_unsupported_reason,
    divide_up,
    dtype_unsupported_reason,
    require,
    rows_in_memory,
    summed,
)
from .operator import differentiable, differentiable_no_more, fake, operator
from .packed import parameter_gradients
from .tiles import accumulation_type, along_pixels

_BLOCK = 32


def compose(matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Folds a 1x1 convolution into the matrix that follows it, by one launch; differentiable.

    Args:
        matrix: M, (B, O, C), float32.
        weight: W of the convolution, (C, J), of any dtype.
        weight_bias: b of the convolution, (C,), of any dtype.
        bias: added after M, (O,), of any dtype, or None.

    Returns:
        ``M W``, (B, O, J), and ``M b + bias``, (B, O), float32.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    product, shift = _compose(matrix, weight, weight_bias, bias)
    return product, shift


def check_convolution(
    operator: str, matrix: Sequence[int], weight: Tensor, weight_bias: Tensor, bias: Tensor | None
) -> None:
    """Refuses a convolution whose shapes do not fit matrices of the shape ``matrix``, (B, O, C).

    Raises:
        InputError: naming the operator, what was found and what was expected.
    """
    rows, channels = matrix[1:]
    found = [tuple(weight.shape), tuple(weight_bias.shape), None if bias is None else tuple(bias.shape)]
    if weight.ndim != 2 or found != [(channels, weight.shape[1]), (channels,), None if bias is None else (rows,)]:
        raise InputError(
            f"{operator}: weight, weight_bias and bias are {found[0]}, {found[1]} and {found[2]} for matrices "
            f"{tuple(matrix)}; expected (C, J), (C,) and (O,) or None for (B, O, C)"
        )


@operator("compose")
def _compose(matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    require("compose", device_unsupported_reason(matrix) or dtype_unsupported_reason(matrix))
    batch, rows, channels = matrix.shape
    columns = weight.shape[1]
    check_convolution("compose", matrix.shape, weight, weight_bias, bias)
    matrix, weight, weight_bias = matrix.contiguous(), weight.contiguous(), weight_bias.contiguous()
    out = torch.empty((batch, rows, columns), device=matrix.device, dtype=matrix.dtype)
    shift = torch.empty((batch, rows), device=matrix.device, dtype=matrix.dtype)
    compose_kernel[(divide_up(rows, _BLOCK), divide_up(columns, _BLOCK), batch)](
        matrix,
        weight,
        weight_bias,
        contiguous(bias),
        out,
        shift,
        columns,
        ROWS=rows,
        C=channels,
        COLUMNS=columns,
        BLOCK=_BLOCK,
        TYPE=accumulation_type(matrix.dtype),
    )
    return out, shift


@fake(_compose)
def _(matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return matrix.new_empty((*matrix.shape[:2], weight.shape[1])), matrix.new_empty(matrix.shape[:2])


def _save_compose(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


@operator(
    "compose_backward",
    "(Tensor grad, Tensor shift_grad, Tensor? direct, Tensor matrix, Tensor weight, Tensor weight_bias) -> Tensor[]",
)
def _compose_backward(
    grad: Tensor, shift_grad: Tensor, direct: Tensor | None, matrix: Tensor, weight: Tensor, weight_bias: Tensor
) -> list[Tensor]:
    matrix, weight, weight_bias = matrix.contiguous(), weight.contiguous(), weight_bias.contiguous()
    (batch, rows, channels), columns = matrix.shape, weight.shape[1]
    # Gradients of each image may be parts of a larger tensor: their matrices are read in place.
    grad, shift_grad = rows_in_memory(grad), along_pixels(shift_grad)
    direct = None if direct is None else rows_in_memory(direct)
    found = _empty_gradients(grad, shift_grad, direct, matrix, weight, weight_bias)
    tiles_of_channels = divide_up(channels, _BLOCK)
    of_matrix = batch * divide_up(rows, _BLOCK) * tiles_of_channels
    compose_backward_kernel[(of_matrix + tiles_of_channels * divide_up(columns, _BLOCK),)](
        grad,
        shift_grad,
        direct,
        matrix,
        weight,
        weight_bias,
        *found,
        grad.stride(0),
        shift_grad.stride(0),
        0 if direct is None else direct.stride(0),
        batch,
        ROWS=rows,
        C=channels,
        COLUMNS=columns,
        BLOCK=_BLOCK,
        TYPE=accumulation_type(matrix.dtype),
    )
    return found


@fake(_compose_backward)
def _empty_gradients(
    grad: Tensor, shift_grad: Tensor, direct: Tensor | None, matrix: Tensor, weight: Tensor, weight_bias: Tensor
) -> list[Tensor]:
    sizes = (matrix.shape, (weight.numel() + weight_bias.numel(),))
    return [torch.empty(size, device=matrix.device, dtype=matrix.dtype) for size in sizes]


def compose_gradients(
    grad: Tensor,
    shift_grad: Tensor,
    direct: Tensor | None,
    matrix: Tensor,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Returns the gradients of matrix, weight, weight_bias and bias, given those of ``compose``'s two outputs.

    ``direct``, if given, is added to the gradient of the matrix: what it gets where it is an output itself.
    """
    d_matrix, of_convolution = _compose_backward(grad, shift_grad, direct, matrix, weight, weight_bias)
    of_bias = None if bias is None else summed(shift_grad).to(bias.dtype)
    d_weight, d_weight_bias = parameter_gradients(of_convolution, [weight, weight_bias])
    return d_matrix, d_weight, d_weight_bias, of_bias


def _differentiate_compose(ctx: Any, grad: Tensor, shift_grad: Tensor) -> tuple[Tensor | None, ...]:
    return compose_gradients(grad, shift_grad, None, *ctx.saved_tensors)


differentiable(_compose, _differentiate_compose, _save_compose)
differentiable_no_more(_compose_backward)
