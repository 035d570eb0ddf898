"""A 1x1 convolution folded into the matrix that follows it: ``M (W x + b) + bias = (M W) x + (M b + bias)``.

Inside of operators: without gradients, which ``compose_gradients`` computes.
"""

from __future__ import annotations

from collections.abc import Sequence

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
)
from .tiles import accumulation_type, along_pixels

_BLOCK = 32


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


def compose(matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Folds a 1x1 convolution into the matrix that follows it, by one launch.

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


def compose_gradients(
    grad: Tensor, shift_grad: Tensor, direct: Tensor | None, matrix: Tensor, weight: Tensor, weight_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the matrix and, as one vector, of weight and weight_bias, by one launch.

    Args:
        grad: of ``M W``, (B, O, J), as all here float32.
        shift_grad: of the shift, (B, O).
        direct: added to the gradient of the matrix, (B, O, C): what it gets where it is an output itself, or None.
        matrix: M.
        weight: W.
        weight_bias: b.
    """
    matrix, weight, weight_bias = matrix.contiguous(), weight.contiguous(), weight_bias.contiguous()
    (batch, rows, channels), columns = matrix.shape, weight.shape[1]
    # Gradients of each image may be parts of a larger tensor: their matrices are read in place.
    grad, shift_grad = rows_in_memory(grad), along_pixels(shift_grad)
    direct = None if direct is None else rows_in_memory(direct)
    sizes = (matrix.shape, (weight.numel() + weight_bias.numel(),))
    of_matrix, of_convolution = (torch.empty(size, device=matrix.device, dtype=matrix.dtype) for size in sizes)
    tiles_of_channels = divide_up(channels, _BLOCK)
    programs = batch * divide_up(rows, _BLOCK) * tiles_of_channels + tiles_of_channels * divide_up(columns, _BLOCK)
    compose_backward_kernel[(programs,)](
        grad,
        shift_grad,
        direct,
        matrix,
        weight,
        weight_bias,
        of_matrix,
        of_convolution,
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
    return of_matrix, of_convolution
