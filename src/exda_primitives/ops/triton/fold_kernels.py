"""The kernels of ``fold``, ``compose`` and ``fold_branch``: softmaxes of small matrices, and products.

``fold`` has the equations. M = C + K is the number of rows and columns of a head's logits, c channels, then K tokens;
BLOCK_M, a power of two, holds all columns, since a softmax takes its whole row. Everything is exact float32 ("ieee"),
even where TF32 is allowed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..precision import EPS
from .kernel import single_config
from .tiles import dot

_EPS: tl.constexpr = tl.constexpr(EPS)


@triton.jit
def divisors(squares: tl.tensor, i: tl.tensor, M: tl.constexpr, TYPE: tl.constexpr) -> tl.tensor:
    """Returns the divisors that give rows ``i`` an L2 norm of 1, from squared norms: see ``precision.unit_divisor``."""
    # Beyond row M the norm is 0, not 1: Triton 3.2 compiles no other constant in a loop.
    norm = tl.sqrt(tl.load(squares + i, mask=i < M, other=0.0).to(TYPE))
    # max(|q|, EPS), but 1 for a row of zeros.
    return tl.where(norm == 0, 1.0, tl.maximum(norm, _EPS))


@triton.jit
def logit_rows(
    products: tl.tensor,
    q_squares: tl.tensor,
    columns: tl.tensor,
    temperature: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    M: tl.constexpr,
) -> tl.tensor:
    """Returns rows ``i`` of the logits, (BLOCK_R, BLOCK_M), given the divisors ``columns`` of columns ``j``."""
    at = products + i[:, None] * M + j[None, :]
    # Zeros beyond M keep the softmaxes of absent rows finite; a factor of 0 removes these later.
    rows = tl.load(at, mask=(i < M)[:, None] & (j < M)[None, :], other=0.0)
    # temperature q_i k_j^T / (|q_i| |k_j|)
    return temperature * (rows / divisors(q_squares, i, M, rows.dtype)[:, None] / columns[None, :])


@triton.jit
def softmax(logits: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Returns each row's softmax over the columns ``inside``, 0 in all others, and the row's log-sum-exp over them."""
    logits = tl.where(inside[None, :], logits, float("-inf"))
    # exp(logit - largest) does not overflow.
    largest = tl.max(logits, 1)
    weights = tl.exp(logits - largest[:, None])
    total = tl.sum(weights, 1)
    return weights / total[:, None], largest + tl.log(total)


@triton.jit
def token_share(token_sum: tl.tensor, own_sum: tl.tensor) -> tl.tensor:
    """Returns p, the share of each row's softmax mass on the tokens, from its log-sum-exps over tokens and channels."""
    # p = sigmoid(token_sum - own_sum), by an exponential of at most 1, which does not overflow.
    odds = tl.exp(-tl.abs(token_sum - own_sum))
    return tl.where(token_sum > own_sum, 1.0, odds) / (1 + odds)


@triton.jit
def own_of_tokens(
    products: tl.tensor,
    q_squares: tl.tensor,
    columns: tl.tensor,
    temperature: tl.tensor,
    j: tl.tensor,
    C: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    TYPE: tl.constexpr,
) -> tl.tensor:
    """Returns ``mean_k(A_own)``, the mean of the K tokens' own rows, (1, BLOCK_M)."""
    M: tl.constexpr = C + K
    own = tl.zeros((1, BLOCK_M), TYPE)
    # The tokens are rows C to M of the logits; their softmaxes go over all M columns.
    for first in range(C, M, BLOCK_R):
        i = first + tl.arange(0, BLOCK_R)
        weights, _ = softmax(logit_rows(products, q_squares, columns, temperature, i, j, M), j < M)
        own += tl.sum(tl.where((i < M)[:, None], weights, 0.0), 0)[None, :] / K
    return own


@triton.jit
def _rows_of_head(
    gram: tl.tensor,
    temperature: tl.tensor,
    gate: tl.tensor,
    alpha: tl.tensor,
    left: tl.tensor,
    left_row: tl.tensor,
    head: tl.tensor,
    o: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    CHANNELWISE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    TYPE: tl.constexpr,
) -> tl.tensor:
    """Returns rows ``o`` of ``left E`` for one head of one image, (BLOCK_O, BLOCK_M).

    The columns are C channels, K tokens, then zeros. ``gram`` starts at this head of the image, (M + 2, M): the
    products, a row of q's and a row of k's squared norms.
    """
    M: tl.constexpr = C + K
    # Channels j < C, tokens C <= j < M.
    j = tl.arange(0, BLOCK_M)
    q_squares = gram + M * M
    columns = divisors(q_squares + M, j, M, TYPE)
    temperature = tl.load(temperature + head).to(TYPE)
    if K > 0:
        gate = tl.load(gate + head).to(TYPE)
        alpha = tl.load(alpha + head).to(TYPE)
        if not CHANNELWISE:
            own = own_of_tokens(gram, q_squares, columns, temperature, j, C, K, BLOCK_M, BLOCK_R, TYPE)

    # left E = sum over the head's channels i of left[:, i] E[i, :], BLOCK_R channels at a time: E is never stored.
    acc = tl.zeros((o.shape[0], BLOCK_M), TYPE)
    for first in range(0, C, BLOCK_R):
        i = first + tl.arange(0, BLOCK_R)
        logits = logit_rows(gram, q_squares, columns, temperature, i, j, M)
        # A_local: the softmax of the local logits alone, as the host takes it.
        mixing, own_sum = softmax(logits, j < C)
        if K > 0:
            # A_token: the softmax of the token logits alone. It is 0 where A_local is not: a sum is a concatenation.
            onto_tokens, token_sum = softmax(logits, (j >= C) & (j < M))
            # lam p, and (1 - lam p) A_local + lam p A_token
            mass = (gate * token_share(token_sum, own_sum))[:, None]
            mixing = (1 - mass) * mixing + mass * onto_tokens
            if CHANNELWISE:
                # K = C: channel i takes the own row of token i, row C + i of the logits.
                own_rows, _ = softmax(logit_rows(gram, q_squares, columns, temperature, C + i, j, M), j < M)
                mixing += alpha * own_rows
            else:
                # alpha mean_k(A_own), the same for every channel.
                mixing += alpha * own
        # Rows i >= C of E are no channels: zeros of ``left`` leave them out.
        weight = tl.load(
            left + o[:, None] * left_row + (head * C + i)[None, :],
            mask=(o < ROWS)[:, None] & (i < C)[None, :],
            other=0.0,
        )
        acc = dot(weight.to(TYPE), mixing, acc, "ieee")
    return acc


@triton.jit
def _store_head(
    rows: tl.tensor,
    matrix: tl.tensor,
    token_matrix: tl.tensor,
    scale: tl.tensor,
    image: tl.tensor,
    head: tl.tensor,
    heads: tl.tensor,
    o: tl.tensor,
    known: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
) -> None:
    """Writes one head's rows ``o`` of M_v and, times ``scale``, of M_g, where ``known``."""
    j = tl.arange(0, BLOCK_M)
    # M_v is (B, O, h, c), M_g (B, O, h, K): a row of one head is C or K numbers in a run.
    at = ((image * ROWS + o) * heads + head)[:, None]
    tl.store(matrix + at * C + j[None, :], rows, mask=known[:, None] & (j < C)[None, :])
    if K > 0:
        # G's compact maps have mean 1: of the scale "sum", their factor 1 / cells is applied here.
        tokens = known[:, None] & (j >= C)[None, :] & (j < C + K)[None, :]
        tl.store(token_matrix + at * K + (j - C)[None, :], rows * scale, mask=tokens)


@single_config
@triton.jit
def fold_kernel(
    gram: tl.tensor,
    temperature: tl.tensor,
    gate: tl.tensor,
    alpha: tl.tensor,
    left: tl.tensor,
    matrix: tl.tensor,
    token_matrix: tl.tensor,
    left_row: tl.tensor,
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
    """Computes BLOCK_O rows of M_v and M_g for one head of one image; programs are (rows, heads, images)."""
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    head = tl.program_id(1)
    image = tl.program_id(2)
    rows = _rows_of_head(
        gram + (image * heads + head) * ((C + K + 2) * (C + K)),
        temperature,
        gate,
        alpha,
        left,
        left_row,
        head,
        o,
        ROWS,
        C,
        K,
        CHANNELWISE,
        BLOCK_M,
        BLOCK_R,
        TYPE,
    )
    _store_head(rows, matrix, token_matrix, scale, image, head, heads, o, o < ROWS, ROWS, C, K, BLOCK_M)


@single_config
@triton.jit
def fold_branch_kernel(
    gram: tl.tensor,
    temperature: tl.tensor,
    gate: tl.tensor,
    alpha: tl.tensor,
    left: tl.tensor,
    matrix: tl.tensor,
    token_matrix: tl.tensor,
    weight: tl.tensor,
    vector: tl.tensor,
    bias: tl.tensor,
    branch_matrix: tl.tensor,
    shift: tl.tensor,
    left_row: tl.tensor,
    weight_row: tl.tensor,
    scale: tl.tensor,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELWISE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes BLOCK_O rows and BLOCK_J columns of ``M_t = M_v W2``; programs are (rows, columns, images).

    Every program computes the rows of ``left E`` that it multiplies. The programs of the first columns write these rows
    and the shift.
    """
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    column = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    image = tl.program_id(2)
    j = tl.arange(0, BLOCK_M)
    # ``0 * o`` makes the number a block: the interpreter of Triton 3.9 makes no mask of a block and a number.
    writes = (o < ROWS) & (tl.program_id(1) + 0 * o == 0)
    acc = tl.zeros((BLOCK_O, BLOCK_J), TYPE)
    total = tl.zeros((BLOCK_O,), TYPE)
    for head in range(HEADS):
        rows = _rows_of_head(
            gram + (image * HEADS + head) * ((C + K + 2) * (C + K)),
            temperature,
            gate,
            alpha,
            left,
            left_row,
            head,
            o,
            ROWS,
            C,
            K,
            CHANNELWISE,
            BLOCK_M,
            BLOCK_R,
            TYPE,
        )
        _store_head(rows, matrix, token_matrix, scale, image, head, HEADS, o, writes, ROWS, C, K, BLOCK_M)
        # M_t += M_v[head] W2[head]. The tokens' columns of ``rows``, j >= C, meet zeros: M_g has no part in M_t.
        tile = tl.load(
            weight + (head * C + j)[:, None] * weight_row + column[None, :],
            mask=(j < C)[:, None] & (column < COLUMNS)[None, :],
            other=0.0,
        )
        acc = dot(rows, tile.to(TYPE), acc, "ieee")
        # shift = M_v b2 + bias
        constant = tl.load(vector + head * C + j, mask=j < C, other=0.0).to(TYPE)
        total += tl.sum(rows * constant[None, :], 1)
    if bias is not None:
        total += tl.load(bias + o, mask=o < ROWS, other=0.0).to(TYPE)
    at = image * ROWS + o
    known = (o < ROWS)[:, None] & (column < COLUMNS)[None, :]
    tl.store(branch_matrix + at[:, None] * COLUMNS + column[None, :], acc, mask=known)
    tl.store(shift + at, total, mask=writes)


@single_config
@triton.jit
def compose_kernel(
    matrix: tl.tensor,
    weight: tl.tensor,
    vector: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    shift: tl.tensor,
    weight_row: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes BLOCK rows and columns of ``matrix weight``; programs are (rows, columns, images).

    The programs of the first columns also write the shift, ``matrix vector + bias``.
    """
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.program_id(2) * ROWS + o
    acc = tl.zeros((BLOCK, BLOCK), TYPE)
    total = tl.zeros((BLOCK,), TYPE)
    for first in range(0, C, BLOCK):
        i = first + tl.arange(0, BLOCK)
        a = tl.load(matrix + rows[:, None] * C + i[None, :], mask=(o < ROWS)[:, None] & (i < C)[None, :], other=0.0)
        b = tl.load(
            weight + i[:, None] * weight_row + j[None, :], mask=(i < C)[:, None] & (j < COLUMNS)[None, :], other=0.0
        )
        acc = dot(a, b.to(TYPE), acc, "ieee")
        # ``matrix vector``, summed over the tiles that the product loads anyway.
        total += tl.sum(a * tl.load(vector + i, mask=i < C, other=0.0).to(TYPE)[None, :], 1)
    if bias is not None:
        total += tl.load(bias + o, mask=o < ROWS, other=0.0).to(TYPE)
    tl.store(out + rows[:, None] * COLUMNS + j[None, :], acc, mask=(o < ROWS)[:, None] & (j < COLUMNS)[None, :])
    # A block, as in ``fold_branch_kernel``.
    tl.store(shift + rows, total, mask=(o < ROWS) & (tl.program_id(1) + 0 * o == 0))
