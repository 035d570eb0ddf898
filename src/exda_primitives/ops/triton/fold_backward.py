"""The gradient of ``fold``, by one launch: a program takes one head of one image.

With ``M = left E`` and dM its gradient, ``dE = left^T dM`` and ``dleft = dM E^T``; then back through

    E = (1 - lam p) A_local + lam p A_token + alpha A_own,    p = sigmoid(s_token - s_local),

where s is the log-sum-exp of a row's token or local logits, whose gradient with respect to these logits is their
softmax, and through ``logits = temperature products / (|q| |k|)``. E is small: it is computed again, tile by tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import EPS
from .fold_arguments import FoldArguments
from .fold_kernels import divisors, logit_rows, own_of_tokens, softmax, token_share
from .kernel import single_config
from .launch import rows_in_memory, summed
from .operator import differentiable_no_more, fake, operator
from .tiles import dot

_EPS: tl.constexpr = tl.constexpr(EPS)


@triton.jit
def _through_softmax(weights: tl.tensor, grad: tl.tensor) -> tl.tensor:
    """Returns the gradient of rows of logits from that of their softmax."""
    # dl = A * (dA - sum_j A_j dA_j)
    return weights * (grad - tl.sum(weights * grad, 1)[:, None])


@triton.jit
def _of_squares(
    weighted: tl.tensor, squares: tl.tensor, i: tl.tensor, known: tl.tensor, TYPE: tl.constexpr
) -> tl.tensor:
    """Returns the gradient of squared norms, given the sums ``weighted`` of ``d_logits logits`` that each norm divides.

    A logit is proportional to 1 / |q|, hence ``d|q|^2 = -sum(d_logits logits) / (2 |q|^2)``.
    """
    norm = tl.sqrt(tl.load(squares + i, mask=known, other=0.0).to(TYPE))
    # Below EPS, the divisor is a constant (``divisors``): no gradient.
    counts = norm >= _EPS
    norm = tl.where(counts, norm, 1.0)
    return tl.where(counts, -weighted / (2 * norm * norm), 0.0)


@triton.jit
def _rows_back(
    d_logits: tl.tensor,
    products: tl.tensor,
    q_squares: tl.tensor,
    columns: tl.tensor,
    temperature: tl.tensor,
    d_products: tl.tensor,
    d_q_squares: tl.tensor,
    i: tl.tensor,
    known: tl.tensor,
    j: tl.tensor,
    M: tl.constexpr,
) -> tl.tensor:
    """Writes the gradients of rows ``i`` of the products and of their squared norms, where ``known``.

    Returns ``d_logits cosines``, (BLOCK_R, BLOCK_M): its sums over rows and columns give the gradients of the
    temperature and of k's squared norms.
    """
    at, inside = i[:, None] * M + j[None, :], known[:, None] & (j < M)[None, :]
    rows = tl.load(products + at, mask=inside, other=0.0)
    # |q_i| |k_j|
    divisor = divisors(q_squares, i, M, rows.dtype)[:, None] * columns[None, :]
    weighted = d_logits * rows / divisor
    # dP = temperature d_logits / (|q| |k|)
    tl.store(d_products + at, temperature * d_logits / divisor, mask=inside)
    # sum_j d_logits logits: a logit is temperature times a cosine.
    of_rows = temperature * tl.sum(weighted, 1)
    tl.store(d_q_squares + i, _of_squares(of_rows, q_squares, i, known, rows.dtype), mask=known)
    return weighted


@single_config
@triton.jit
def fold_backward_kernel(
    gram: tl.tensor,
    temperature: tl.tensor,
    gate: tl.tensor,
    alpha: tl.tensor,
    left: tl.tensor,
    d_matrix: tl.tensor,
    d_token_matrix: tl.tensor,
    d_gram: tl.tensor,
    d_parameters: tl.tensor,
    left_row: tl.tensor,
    d_matrix_image: tl.tensor,
    d_token_image: tl.tensor,
    heads: tl.tensor,
    scale: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    CHANNELWISE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes all gradients of one head of one image; programs are (heads, images).

    ``d_parameters`` is (B, O*h*c + 3*h): for each image, the gradients of ``left``, temperature, gate and alpha. What
    the images share gets one part from each; these are summed later, in a fixed order, not by atomic additions.
    """
    M: tl.constexpr = C + K
    head, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    j = tl.arange(0, BLOCK_M)
    # Products, (M, M), then a row of q's and a row of k's squared norms; their gradients alike.
    products = gram + (image * heads + head) * ((M + 2) * M)
    q_squares = products + M * M
    k_squares = q_squares + M
    d_products = d_gram + (image * heads + head) * ((M + 2) * M)
    d_q_squares = d_products + M * M
    d_matrix += image * d_matrix_image
    if K > 0:
        d_token_matrix += image * d_token_image
    d_left = d_parameters + image * (ROWS * heads * C + 3 * heads)
    d_terms = d_left + ROWS * heads * C + head
    columns = divisors(k_squares, j, M, TYPE)
    factor = tl.load(temperature + head).to(TYPE)
    # One partial sum for each row of a tile, over all tiles; reduced once, at the end.
    d_factor = tl.zeros((BLOCK_R,), TYPE)
    d_gate = tl.zeros((BLOCK_R,), TYPE)
    d_alpha = tl.zeros((BLOCK_R,), TYPE)
    # sum_i d_logits cosines, for the squared norms of k
    of_columns = tl.zeros((BLOCK_M,), TYPE)
    # sum_i dE: mean_k(A_own) is added to every channel's row, so its gradient (but for alpha) is the sum over them.
    d_own = tl.zeros((BLOCK_M,), TYPE)
    if K > 0:
        lam = tl.load(gate + head).to(TYPE)
        weight_of_own = tl.load(alpha + head).to(TYPE)
        if not CHANNELWISE:
            own = own_of_tokens(products, q_squares, columns, factor, j, C, K, BLOCK_M, BLOCK_R, TYPE)

    for first in range(0, C, BLOCK_R):
        # Rows i of E again, as in forward (``fold_kernels``).
        i = first + tl.arange(0, BLOCK_R)
        logits = logit_rows(products, q_squares, columns, factor, i, j, M)
        local, local_sum = softmax(logits, j < C)
        mixing = local
        if K > 0:
            onto_tokens, token_sum = softmax(logits, (j >= C) & (j < M))
            share = token_share(token_sum, local_sum)
            mass = (lam * share)[:, None]
            mixing = (1 - mass) * local + mass * onto_tokens
            if CHANNELWISE:
                own_rows, _ = softmax(logit_rows(products, q_squares, columns, factor, C + i, j, M), j < M)
                mixing += weight_of_own * own_rows
            else:
                mixing += weight_of_own * own

        # dE[i] = left[:, i]^T dM, summed over BLOCK_O rows of dM at a time
        d_mixing = tl.zeros((BLOCK_R, BLOCK_M), TYPE)
        for begin in range(0, ROWS, BLOCK_O):
            o = begin + tl.arange(0, BLOCK_O)
            at = (o * heads + head)[:, None]
            grad = tl.load(d_matrix + at * C + j[None, :], mask=(o < ROWS)[:, None] & (j < C)[None, :], other=0.0)
            if K > 0:
                # dM = [dM_v, scale dM_g], as one tile of all columns.
                tokens = (o < ROWS)[:, None] & (j >= C)[None, :] & (j < M)[None, :]
                grad += scale * tl.load(d_token_matrix + at * K + (j - C)[None, :], mask=tokens, other=0.0)
            channel = (head * C + i)[None, :]
            known = (o < ROWS)[:, None] & (i < C)[None, :]
            weight = tl.load(left + o[:, None] * left_row + channel, mask=known, other=0.0)
            d_mixing = dot(tl.trans(weight.to(TYPE)), grad, d_mixing, "ieee")
            # dleft[:, i] = dM E[i]^T, of this image
            d_weight = dot(grad, tl.trans(mixing), tl.zeros((BLOCK_O, BLOCK_R), TYPE), "ieee")
            tl.store(d_left + o[:, None] * (heads * C) + channel, d_weight, mask=known)

        # Rows i >= C are no channels: there d_mixing is 0, and so is all that follows from it.
        if K > 0:
            # d(lam p) = sum_j dE (A_token - A_local), dlam = p d(lam p)
            d_mass = tl.sum(d_mixing * (onto_tokens - local), 1)
            d_gate += d_mass * share
            # p = sigmoid(s_token - s_local): d(s_token - s_local) = lam p (1 - p) d(lam p)
            d_gap = (d_mass * lam * share * (1 - share))[:, None]
            # ds / dlogits are the softmaxes themselves: plus A_token, minus A_local.
            d_logits = _through_softmax(local, (1 - mass) * d_mixing) - d_gap * local
            d_logits += _through_softmax(onto_tokens, mass * d_mixing) + d_gap * onto_tokens
            if CHANNELWISE:
                # alpha A_own[i] of token i alone: its row of logits, C + i, gets its whole gradient here.
                d_alpha += tl.sum(d_mixing * own_rows, 1)
                d_rows = _through_softmax(own_rows, weight_of_own * d_mixing)
                weighted = _rows_back(
                    d_rows, products, q_squares, columns, factor, d_products, d_q_squares, C + i, i < C, j, M
                )
                d_factor += tl.sum(weighted, 1)
                of_columns += tl.sum(weighted, 0)
            else:
                d_alpha += tl.sum(d_mixing * own, 1)
                d_own += tl.sum(d_mixing, 0)
        else:
            d_logits = _through_softmax(local, d_mixing)
        weighted = _rows_back(d_logits, products, q_squares, columns, factor, d_products, d_q_squares, i, i < C, j, M)
        d_factor += tl.sum(weighted, 1)
        of_columns += tl.sum(weighted, 0)

    if K > 0:
        if not CHANNELWISE:
            # The tokens' own rows, i from C to M, each with alpha / K of sum_i dE.
            for first in range(C, M, BLOCK_R):
                i = first + tl.arange(0, BLOCK_R)
                weights, _ = softmax(logit_rows(products, q_squares, columns, factor, i, j, M), j < M)
                d_rows = _through_softmax(weights, (weight_of_own / K) * d_own[None, :])
                # d_own is the same for all rows: those beyond M must not reach the sums over rows.
                d_rows = tl.where((i < M)[:, None], d_rows, 0.0)
                weighted = _rows_back(
                    d_rows, products, q_squares, columns, factor, d_products, d_q_squares, i, i < M, j, M
                )
                d_factor += tl.sum(weighted, 1)
                of_columns += tl.sum(weighted, 0)
        tl.store(d_terms + heads, tl.sum(d_gate, 0))
        tl.store(d_terms + 2 * heads, tl.sum(d_alpha, 0))
    tl.store(d_terms, tl.sum(d_factor, 0))
    d_columns = _of_squares(factor * of_columns, k_squares, j, j < M, TYPE)
    tl.store(d_q_squares + M + j, d_columns, mask=j < M)


def compute(
    d_matrix: Tensor,
    d_token_matrix: Tensor | None,
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    """Computes the gradients of ``fold`` inside of an operator, given those of M_v and, with tokens, of M_g.

    The other arguments are those of ``fold``'s operator. Returns the gradient of ``gram`` and, as one vector, those of
    left, temperature, gate and alpha, summed over the images.
    """
    arguments = FoldArguments(gram, temperature, left, gate, alpha, channelwise)
    d_matrix = rows_in_memory(d_matrix)
    d_token_matrix = None if d_token_matrix is None else rows_in_memory(d_token_matrix)
    # Of each image, the gradients of all parameters, which the images share.
    sizes = (gram.shape, (arguments.batch, left.numel() + 3 * arguments.heads))
    d_gram, of_images = (torch.empty(size, device=gram.device, dtype=gram.dtype) for size in sizes)
    fold_backward_kernel[(arguments.heads, arguments.batch)](
        *arguments.tensors,
        d_matrix,
        d_token_matrix,
        d_gram,
        of_images,
        arguments.left_row,
        d_matrix.stride(0),
        0 if d_token_matrix is None else d_token_matrix.stride(0),
        arguments.heads,
        1 / cells,
        # More warps than forward: a tile's weights and their gradients would spill in 4.
        **arguments.constants | {"num_warps": 8},
    )
    return [d_gram, summed(of_images)]


fold_backward = operator(
    "fold_backward",
    "(Tensor d_matrix, Tensor? d_token_matrix, Tensor gram, Tensor temperature, Tensor left, Tensor? gate, "
    "Tensor? alpha, SymInt cells, bool channelwise) -> Tensor[]",
)(compute)


@fake(fold_backward)
def _(
    d_matrix: Tensor,
    d_token_matrix: Tensor | None,
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    sizes = (gram.shape, (left.numel() + 3 * gram.shape[1],))
    return [torch.empty(size, device=gram.device, dtype=gram.dtype) for size in sizes]


differentiable_no_more(fold_backward)
