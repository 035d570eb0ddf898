"""All matrices of an attention whose value has a non-linear branch, ``[M_v, M_g, M_t]`` and the shift.

They are those of ``fold`` and ``compose``, by one launch and one operator where the matrices are small: a program for
some rows and columns of ``M_t = M_v W2`` computes the rows of M_v itself. Where repeating these takes longer than a
launch (more than ``MOST_CHANNELS``), or where a head's rows do not fit the registers (more than
``MOST_REGISTER_ROWS``), the two operators are called.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .compose import check_convolution, compose, compose_gradients
from .fold import TokenMixing, fold
from .fold_arguments import FoldArguments, empty_matrices
from .fold_backward import fold_gradients
from .fold_kernels import fold_branch_kernel
from .gram import Gram
from .launch import contiguous, divide_up
from .operator import differentiable, fake, operator

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
    gram: Gram,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None = None,
) -> Matrices:
    """Computes ``fold.fold`` and folds the last convolution of the value's branch into its M_v; differentiable once.

    One launch for up to 128 channels in all and, in each head, 64 channels and tokens; else two.

    Args:
        gram: Gram blocks of h heads, each of c channels and K tokens, float32.
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
    if left.shape[-1] > MOST_CHANNELS or gram.packed.shape[-1] > MOST_REGISTER_ROWS:
        value, onto_tokens = fold(gram, temperature, left, tokens)
        return Matrices(value, onto_tokens, *compose(value, weight, weight_bias, bias))
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    value, *rest, branch, shift = _fold_branch(
        gram.packed, temperature, left, gate, alpha, weight, weight_bias, bias, cells, reinject == "channelwise"
    )
    return Matrices(value, rest[0] if rest else None, branch, shift)


@operator(
    "fold_branch",
    "(Tensor gram, Tensor temperature, Tensor left, Tensor? gate, "
    "Tensor? alpha, Tensor weight, Tensor weight_bias, Tensor? bias, SymInt cells, bool channelwise) -> Tensor[]",
)
def _fold_branch(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    arguments = FoldArguments(gram, temperature, left, gate, alpha, channelwise)
    matrices = empty_matrices(gram, left, gate)
    check_convolution("fold_branch", matrices[0].shape, weight, weight_bias, bias)
    weight, weight_bias = weight.contiguous(), weight_bias.contiguous()
    out = _empty_branch(gram, left, weight)
    # Without tokens, matrices[-1] is M_v again: the kernel does not write through it.
    fold_branch_kernel[(divide_up(arguments.rows, _BLOCK_O), divide_up(weight.shape[1], _BLOCK_J), arguments.batch)](
        *arguments.tensors,
        matrices[0],
        matrices[-1],
        weight,
        weight_bias,
        contiguous(bias),
        *out,
        *arguments.strides,
        weight.stride(0),
        1 / cells,
        HEADS=arguments.heads,
        COLUMNS=weight.shape[1],
        BLOCK_J=_BLOCK_J,
        **arguments.constants | {"BLOCK_O": _BLOCK_O},
    )
    return [*matrices, *out]


def _empty_branch(gram: Tensor, left: Tensor, weight: Tensor) -> list[Tensor]:
    """Returns uninitialised M_t, (B, O, J), and shift, (B, O)."""
    rows = (gram.shape[0], left.shape[0])
    sizes = ((*rows, weight.shape[1]), rows)
    return [torch.empty(size, device=gram.device, dtype=gram.dtype) for size in sizes]


@fake(_fold_branch)
def _(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    return [*empty_matrices(gram, left, gate), *_empty_branch(gram, left, weight)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.cells, ctx.channelwise = inputs
    # M_v as well: ``compose``'s gradient multiplies by it.
    ctx.save_for_backward(*tensors, output[0])


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    # The gradients of both operators in turn: M_v gets its own and, through M_t and the shift, one from ``compose``.
    *folded, weight, weight_bias, bias, matrix = ctx.saved_tensors
    d_matrix, *onto_tokens, d_branch, d_shift = grads
    d_matrix, *of_convolution = compose_gradients(d_branch, d_shift, d_matrix, matrix, weight, weight_bias, bias)
    found = fold_gradients([d_matrix, *onto_tokens], folded, ctx.cells, ctx.channelwise)
    return *found, *of_convolution, None, None


differentiable(_fold_branch, _differentiate, _save)
