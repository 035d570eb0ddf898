"""Turns Gram blocks into the matrices of an attention's output: the small step between two passes over the maps.

A head has c channels and K tokens. Of the (c+K) x (c+K) logits ``temperature Q* K*^T``, rows of Q* and K* of norm 1,

    E = [(1 - lam p) A_local, lam p A_token] + alpha mean_k(A_own),    (c x (c+K)),

where A_local and A_token are the softmaxes of a channel's row over its c local and its K token logits alone, A_own the
tokens' own rows, softmaxes over all c+K logits, p a channel's softmax mass on tokens, and lam the gate. Then

    [M_v, M_g] = left blockdiag(E),    M_t = M_v W2,    shift = M_v b2 + bias:

``left`` is the projection W_out after the attention, W2 and b2 are the last convolution of the non-linear value.

``fold`` is one launch: each program takes one head and some rows of ``left``, and computes E tile by tile inside the
product; softmaxes that several programs repeat are cheaper than a launch. M_t and the shift take a second launch
(``compose``) or, where matrices are small, none (``fold_branch``). Everything is exact float32, even where TF32 is
allowed. Backward computes the small matrices again, in one launch as well (``fold_backward``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..terms import Reinject
from .fold_arguments import FoldArguments, empty_matrices
from .fold_backward import fold_backward
from .fold_kernels import fold_kernel
from .launch import divide_up
from .operator import differentiable, fake, operator
from .packed import parameter_gradients


class TokenMixing(NamedTuple):
    """How the tokens take part in the attention.

    Attributes:
        gate: lam, h elements of any dtype and shape: 0 gives the channels' rows of the host, 1 those of the paper.
        alpha: weight of the tokens' own rows, h elements of any dtype and shape.
        cells: divisor of the tokens as values: the number of pooled pixels for the scale ``"sum"``, 1 for ``"mean"``.
        reinject: what is added to the channels' rows: the mean of the tokens' own rows (``"mean"``) or, where K = c,
            one to each (``"channelwise"``).
    """

    gate: Tensor
    alpha: Tensor
    cells: int = 1
    reinject: Reinject = "mean"


def fold(
    gram: Tensor, temperature: Tensor, left: Tensor, tokens: TokenMixing | None = None
) -> tuple[Tensor, Tensor | None]:
    """Computes ``left blockdiag(E)`` for each image, by one launch; differentiable once.

    Args:
        gram: Gram blocks of h heads, each of c channels and K tokens, (B, h, m+2, m), float32, as ``gram`` returns.
        temperature: h elements, of any dtype and shape.
        left: (O, h*c), of any dtype.
        tokens: gate, alpha and scale; None if and only if K = 0.

    Returns:
        M_v, onto the value channels, (B, O, h*c), and M_g, onto the tokens, (B, O, h*K) or None if K = 0; float32.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    matrix, *rest = _fold(gram, temperature, left, gate, alpha, cells, reinject == "channelwise")
    return matrix, rest[0] if rest else None


def compute(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    """Computes ``fold`` inside of an operator, without gradients: [M_v] or, with tokens, [M_v, M_g]."""
    arguments = FoldArguments(gram, temperature, left, gate, alpha, channelwise)
    matrices = empty_matrices(gram, left, gate)
    # Without tokens, matrices[-1] is M_v again: the kernel does not write through it.
    fold_kernel[(divide_up(arguments.rows, arguments.constants["BLOCK_O"]), arguments.heads, arguments.batch)](
        *arguments.tensors,
        matrices[0],
        matrices[-1],
        arguments.left_row,
        arguments.heads,
        1 / cells,
        **arguments.constants,
    )
    return matrices


_fold = operator(
    "fold",
    "(Tensor gram, Tensor temperature, Tensor left, Tensor? gate, Tensor? alpha, SymInt cells, bool channelwise) -> "
    "Tensor[]",
)(compute)


@fake(_fold)
def _(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    return empty_matrices(gram, left, gate)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.cells, ctx.channelwise = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    gram, temperature, left, gate, alpha = ctx.saved_tensors
    onto_tokens = grads[1] if len(grads) > 1 else None
    options = ctx.cells, ctx.channelwise
    d_gram, packed = fold_backward(grads[0], onto_tokens, gram, temperature, left, gate, alpha, *options)
    d_left, d_temperature, d_gate, d_alpha = parameter_gradients(packed, [left, temperature, gate, alpha])
    return d_gram, d_temperature, d_left, d_gate, d_alpha, None, None


differentiable(_fold, _differentiate, _save)
