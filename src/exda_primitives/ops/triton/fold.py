"""From Gram blocks to the matrices of an attention's output: the small step between two passes over the maps.

With the cosines' softmaxes, lam (the gate) and p (a row's softmax mass on tokens), ``E = [(1 - lam p) A_local, lam
A_token] + alpha mean(A_own)``, (c x (c+K)) a head; ``[M_v, M_g] = left blockdiag(E)``, where ``left`` is the projection
behind the attention, and with the last convolution W2, b2 of the non-linear value ``M_t = M_v W2`` and
``shift = M_v b2 + bias``.

One launch: E is computed tile by tile inside the product with ``left`` (one program a head and rows of ``left``; the
softmaxes are cheaper than a launch). M_t and the shift take another (``compose``) or, of small matrices, none
(``fold_branch``). Everything is float32 and exact, whatever TF32 does elsewhere. Backward, the small matrices are
computed again, by one launch as well (``fold_backward``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..terms import Reinject
from .compose import compose
from .fold_backward import fold_gradients
from .fold_blocks import Blocks, empty_matrices
from .fold_kernels import fold_kernel
from .gram import Gram
from .launch import divide_up
from .operator import differentiable, fake, operator

__all__ = ["TokenMixing", "compose", "fold"]


class TokenMixing(NamedTuple):
    """How tokens take part: lam and alpha, h elements each, of any dtype and shape.

    Attributes:
        gate: lam, how much of the softmax mass the local rows give to tokens.
        alpha: weight of the tokens' own rows.
        cells: what the tokens' use as values is divided by.
        reinject: how the own rows come back to the channels.
    """

    gate: Tensor
    alpha: Tensor
    cells: int = 1
    reinject: Reinject = "mean"


def fold(
    gram: Gram, temperature: Tensor, left: Tensor, tokens: TokenMixing | None = None
) -> tuple[Tensor, Tensor | None]:
    """``left blockdiag(E)``: the matrices onto the value channels and onto the tokens; differentiable, one launch.

    Args:
        gram: of h heads, c channels and K tokens each, float32.
        temperature: h elements, of any dtype and shape.
        left: (O, h*c), of any dtype.
        tokens: None if and only if K = 0.

    Returns:
        (B, O, h*c) and (B, O, h*K), or None for no tokens; float32.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    matrix, *rest = _fold(*gram, temperature, left, gate, alpha, cells, reinject == "channelwise")
    return matrix, rest[0] if rest else None


@operator(
    "fold",
    "(Tensor products, Tensor q_squares, Tensor k_squares, Tensor temperature, Tensor left, Tensor? gate, "
    "Tensor? alpha, SymInt cells, bool channelwise) -> Tensor[]",
)
def _fold(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    blocks = Blocks(products, q_squares, k_squares, temperature, left, gate, alpha, channelwise)
    matrices = empty_matrices(products, left, gate)
    fold_kernel[(divide_up(blocks.rows, blocks.sizes["BLOCK_O"]), blocks.heads, blocks.batch)](
        *blocks.tensors, matrices[0], matrices[-1], *blocks.strides, blocks.heads, 1 / cells, **blocks.sizes
    )
    return matrices


@fake(_fold)
def _(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    return empty_matrices(products, left, gate)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.cells, ctx.channelwise = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    return *fold_gradients(grads, ctx.saved_tensors, ctx.cells, ctx.channelwise), None, None


differentiable(_fold, _differentiate, _save)
