"""All matrices of an attention whose value has a non-linear branch, ``[M_v, M_g, M_t]`` and the shift.

They are those of ``fold`` and ``compose``, by one launch where the matrices are small: a program for some rows and
columns of ``M_t = M_v W2`` computes the rows of M_v itself. Where repeating these takes longer than a launch (more than
``MOST_CHANNELS``), or where a head's rows do not fit the registers (more than ``MOST_REGISTER_ROWS``), there are two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .compose import check_convolution, compose
from .fold import TokenMixing
from .fold import compute as fold
from .fold_arguments import FoldArguments, empty_matrices
from .fold_kernels import fold_branch_kernel
from .launch import contiguous, divide_up

# The most channels of all heads together, h*c: above, repeating M_v takes longer than a launch.
MOST_CHANNELS = 128
# The most channels and tokens of one head, c + K, so that BLOCK_M is at most 64: more do not fit the registers.
MOST_REGISTER_ROWS = 64
# Rows and columns of M_t that a program computes. 16 rows are the least that tl.dot takes.
_BLOCK_O, _BLOCK_J = 16, 32


class Matrices(NamedTuple):
    """What an attention's maps are multiplied by, and what is added to the output; float32.

    Attributes:
        value: M_v, onto the value channels, (B, O, h*c).
        tokens: M_g, onto the token maps, (B, O, h*K), or None without tokens.
        branch: ``M_t = M_v W2``, onto the hidden map of the non-linear value, (B, O, J).
        shift: ``M_v b2 + bias``, added to every pixel, (B, O).
    """

    value: Tensor
    tokens: Tensor | None
    branch: Tensor
    shift: Tensor


def fold_branch(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None = None,
) -> Matrices:
    """Computes ``fold.fold`` and folds the last convolution of the value's branch into its M_v; without gradients.

    One launch for up to 128 channels in all and, in each head, 64 channels and tokens; else two.

    Args:
        gram: Gram blocks of h heads, each of c channels and K tokens, (B, h, m+2, m), float32, as ``gram`` returns.
        temperature: h elements, of any dtype and shape.
        left: (O, h*c), of any dtype.
        tokens: gate, alpha and scale; None if and only if K = 0.
        weight: W2 of the branch's last convolution, (h*c, J), of any dtype.
        weight_bias: b2 of the branch's last convolution, (h*c,), of any dtype.
        bias: added after ``left``, (O,), of any dtype, or None.

    Returns:
        The matrices and the shift.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    if left.shape[-1] > MOST_CHANNELS or gram.shape[-1] > MOST_REGISTER_ROWS:
        value, *rest = fold(gram, temperature, left, gate, alpha, cells, reinject == "channelwise")
        return Matrices(value, rest[0] if rest else None, *compose(value, weight, weight_bias, bias))
    arguments = FoldArguments(gram, temperature, left, gate, alpha, reinject == "channelwise")
    matrices = empty_matrices(gram, left, gate)
    check_convolution("fold_branch", matrices[0].shape, weight, weight_bias, bias)
    weight, weight_bias = weight.contiguous(), weight_bias.contiguous()
    sizes = ((arguments.batch, arguments.rows, weight.shape[1]), (arguments.batch, arguments.rows))
    branch, shift = (torch.empty(size, device=left.device, dtype=gram.dtype) for size in sizes)
    # Without tokens, matrices[-1] is M_v again: the kernel does not write through it.
    fold_branch_kernel[(divide_up(arguments.rows, _BLOCK_O), divide_up(weight.shape[1], _BLOCK_J), arguments.batch)](
        *arguments.tensors,
        matrices[0],
        matrices[-1],
        weight,
        weight_bias,
        contiguous(bias),
        branch,
        shift,
        arguments.left_row,
        weight.stride(0),
        1 / cells,
        HEADS=arguments.heads,
        COLUMNS=weight.shape[1],
        BLOCK_J=_BLOCK_J,
        **arguments.constants | {"BLOCK_O": _BLOCK_O},
    )
    return Matrices(matrices[0], matrices[1] if len(matrices) > 1 else None, branch, shift)
