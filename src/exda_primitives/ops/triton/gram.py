"""Gram blocks and squared norms of q, k and the tokens, all that channel attention needs of them, in one pass.

With ``Q* = [q; g]`` and ``K* = [k; g]``, (c+K) rows of N pixels per head: the unnormalised Gram blocks ``P = Q* K*^T``,
that is ``q k^T``, ``q g^T``, ``g k^T`` and ``g g^T``, and the squared norms of all rows. Nothing is concatenated: the
rows of a tile come from two addresses. The forward pass reads q, k and g once (tiles of more than 128 rows: once from
memory, again from the cache) and writes one partial sum for each split of the pixels; PyTorch adds these in a fixed
order, by a second launch if there are several.

Backward, ``dQ* = dP K* + 2 dq^2 Q*`` and ``dK* = dP^T Q* + 2 dk^2 K*`` (dq^2, dk^2 the gradients of the squared norms,
one per row): one pass that reads q, k, g and writes dq, dk and ``dg = dQ*[c:] + dK*[c:]``.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...errors import InputError
from ..precision import accumulation_dtype
from .kernel import autotuned
from .launch import device_unsupported_reason, divide_up, dtype_unsupported_reason, require, summed
from .operator import differentiable, differentiable_no_more, fake, operator
from .tiles import (
    accumulation_type,
    along_pixels,
    dot,
    dot_precision,
    largest_side,
    pixels_per_split,
    scaled_dot,
    tile_side,
    vectorisable,
)


@triton.jit
def _rows(
    own: tl.tensor,
    own_stride: tl.tensor,
    tokens: tl.tensor,
    token_stride: tl.tensor,
    i: tl.tensor,
    C: tl.constexpr,
    K: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> tl.tensor:
    """Returns the addresses of rows ``i`` of [own; tokens]: C rows at ``own``, then K at ``tokens``."""
    # int64: offsets in a large map may not fit 32 bits.
    rows = own + i.to(tl.int64) * own_stride
    if K > 0:
        rows = tl.where(i < C, rows, tokens + (i - C).to(tl.int64) * token_stride)
        if ALIGNED:
            # tl.where hides the alignment from Triton, which would then load element by element.
            rows = tl.multiple_of(rows, 16)
    return rows


@autotuned(
    triton.Config({"BLOCK_N": 64}, num_warps=4, num_stages=4),
    triton.Config({"BLOCK_N": 128}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 64}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 32}, num_warps=8, num_stages=3),
)
@triton.jit
def _gram_kernel(
    q: tl.tensor,
    k: tl.tensor,
    g: tl.tensor,
    partial: tl.tensor,
    q_batch: tl.tensor,
    q_row: tl.tensor,
    k_batch: tl.tensor,
    k_row: tl.tensor,
    g_batch: tl.tensor,
    g_row: tl.tensor,
    N: tl.tensor,
    heads: tl.tensor,
    C: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sums a BLOCK x BLOCK tile of P, and the squared norms of its rows, over the SPLIT pixels of one split.

    Programs are (splits * TILES^2, B * heads).
    """
    M: tl.constexpr = C + K
    # The tiles of one split are neighbouring programs: they read the same pixels, which the cache then holds.
    tile = tl.program_id(0) % (TILES * TILES)
    part = tl.program_id(0) // (TILES * TILES)
    image = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    i = (tile // TILES) * BLOCK + tl.arange(0, BLOCK)
    j = (tile % TILES) * BLOCK + tl.arange(0, BLOCK)
    # The head's rows of q, k and g: C, C and K of them.
    tokens = g + image * g_batch + (head * K).to(tl.int64) * g_row
    q_rows = _rows(q + image * q_batch + (head * C).to(tl.int64) * q_row, q_row, tokens, g_row, i, C, K, ALIGNED)
    k_rows = _rows(k + image * k_batch + (head * C).to(tl.int64) * k_row, k_row, tokens, g_row, j, C, K, ALIGNED)

    products = tl.zeros((BLOCK, BLOCK), TYPE)
    q_squares = tl.zeros((BLOCK,), TYPE)
    k_squares = tl.zeros((BLOCK,), TYPE)
    # The bound is a constant, and pixels beyond N are masked: the interpreter of Triton 3.2 takes no computed bound.
    for first in range(0, SPLIT, BLOCK_N):
        n = part * SPLIT + first + tl.arange(0, BLOCK_N)
        # (BLOCK, BLOCK_N) rows of Q* and K*: the pixels are contiguous in memory, so loads are vectors.
        a = tl.load(q_rows[:, None] + n[None, :], mask=(i < M)[:, None] & (n < N)[None, :], other=0.0)
        b = tl.load(k_rows[:, None] + n[None, :], mask=(j < M)[:, None] & (n < N)[None, :], other=0.0)
        products = dot(a, tl.trans(b), products, PRECISION)
        # Squares and their sums are float32: float16 may overflow, and both half types round.
        q_squares += tl.sum(a.to(TYPE) * a.to(TYPE), 1)
        k_squares += tl.sum(b.to(TYPE) * b.to(TYPE), 1)

    # ``partial`` is (splits, B * heads, M + 2, M): M rows of P, then one of each side's squared norms, added in one go.
    sums = partial + (part.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * ((M + 2) * M)
    tl.store(sums + i[:, None] * M + j[None, :], products, mask=(i < M)[:, None] & (j < M)[None, :])
    # Tiles of one row of tiles have the same squared norms of q, those of one column the same of k: the first writes
    # them. ``+ 0 * i`` makes the number a block, for a mask (``fold_kernels.fold_branch_kernel``).
    tl.store(sums + M * M + i, q_squares, mask=(i < M) & (tile % TILES + 0 * i == 0))
    tl.store(sums + (M + 1) * M + j, k_squares, mask=(j < M) & (tile // TILES + 0 * j == 0))


@autotuned(
    triton.Config({"BLOCK_N": 64}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_N": 64}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK_N": 128}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_N": 32}, num_warps=8, num_stages=1),
)
@triton.jit
def _gram_backward_kernel(
    grad: tl.tensor,
    q: tl.tensor,
    k: tl.tensor,
    g: tl.tensor,
    dq: tl.tensor,
    dk: tl.tensor,
    dg: tl.tensor,
    more: tl.tensor,
    q_batch: tl.tensor,
    q_row: tl.tensor,
    k_batch: tl.tensor,
    k_row: tl.tensor,
    g_batch: tl.tensor,
    g_row: tl.tensor,
    dq_batch: tl.tensor,
    dk_batch: tl.tensor,
    N: tl.tensor,
    heads: tl.tensor,
    C: tl.constexpr,
    K: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Computes BLOCK rows and BLOCK_N pixels of dQ* and dK*; programs are (pixel blocks * TILES, B * heads).

    ``grad`` is (B, heads, M + 2, M): dP, then a row of dq^2, then a row of dk^2. ``more``, (B, heads * K, N) or None,
    is added to dg.
    """
    M: tl.constexpr = C + K
    image = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    first = (head * C).to(tl.int64)
    first_token = (head * K).to(tl.int64)
    i = (tl.program_id(0) % TILES) * BLOCK + tl.arange(0, BLOCK)
    n = (tl.program_id(0) // TILES) * BLOCK_N + tl.arange(0, BLOCK_N)
    q_head = q + image * q_batch + first * q_row
    k_head = k + image * k_batch + first * k_row
    tokens = g + image * g_batch + first_token * g_row
    grad += tl.program_id(1).to(tl.int64) * ((M + 2) * M)

    mask = (i < M)[:, None] & (n < N)[None, :]
    a = tl.load(_rows(q_head, q_row, tokens, g_row, i, C, K, ALIGNED)[:, None] + n[None, :], mask=mask, other=0.0)
    b = tl.load(_rows(k_head, k_row, tokens, g_row, i, C, K, ALIGNED)[:, None] + n[None, :], mask=mask, other=0.0)
    q_weight = tl.load(grad + M * M + i, mask=i < M, other=0.0)
    k_weight = tl.load(grad + (M + 1) * M + i, mask=i < M, other=0.0)
    # 2 dq^2 Q* and 2 dk^2 K*: the gradients through the squared norms.
    da = 2 * q_weight[:, None] * a.to(TYPE)
    db = 2 * k_weight[:, None] * b.to(TYPE)
    # + dP K* and + dP^T Q*, BLOCK rows j of K* and Q* at a time; with a single tile these are the rows i above.
    for tile in range(TILES):
        if TILES > 1:
            j = tile * BLOCK + tl.arange(0, BLOCK)
            inside = (j < M)[:, None] & (n < N)[None, :]
            a = tl.load(
                _rows(q_head, q_row, tokens, g_row, j, C, K, ALIGNED)[:, None] + n[None, :], mask=inside, other=0.0
            )
            b = tl.load(
                _rows(k_head, k_row, tokens, g_row, j, C, K, ALIGNED)[:, None] + n[None, :], mask=inside, other=0.0
            )
        else:
            j = i
        square = (i < M)[:, None] & (j < M)[None, :]
        # FINE: q is normalised later, so dq is orthogonal to q. Most of dP K* cancels against 2 dq^2 Q*; the rounding
        # of dP to a half type would remain.
        weight = tl.load(grad + i[:, None] * M + j[None, :], mask=square, other=0.0)
        da = scaled_dot(weight, b, da, PRECISION, True)
        # dP^T
        weight = tl.load(grad + j[None, :] * M + i[:, None], mask=square, other=0.0)
        db = scaled_dot(weight, a, db, PRECISION, True)

    own = (i < C)[:, None] & (n < N)[None, :]
    at = (first + i)[:, None] * N + n[None, :]
    tl.store(dq + image * dq_batch + at, da.to(dq.dtype.element_ty), mask=own)
    tl.store(dk + image * dk_batch + at, db.to(dk.dtype.element_ty), mask=own)
    if K > 0:
        # g is a row of Q* and of K*: dg = dQ*[c:] + dK*[c:].
        at = ((image * heads + head) * K + i - C)[:, None] * N + n[None, :]
        token = (i >= C)[:, None] & mask
        total = da + db
        if more is not None:
            total += tl.load(more + at, mask=token, other=0.0).to(TYPE)
        tl.store(dg + at, total.to(dg.dtype.element_ty), mask=token)


def gram(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Tensor:
    """Computes the Gram blocks and squared norms of q, k and tokens; differentiable once.

    Args:
        q: (B, C, N), B, C, N >= 1, of float32, float16 or bfloat16; a slice of a larger buffer (any strides of images
            and channels) is read in place if neighbouring pixels are neighbours in memory, else copied.
        k: of the shape and dtype of q; its strides may differ.
        g: tokens, (B, heads*K, N) of q's dtype, or None.
        heads: a divisor of C.

    Returns:
        (B, h, m+2, m) for the m = c+K rows of a head, those of q (or k), then the tokens: the products
        ``[q; g] [k; g]^T``, (m, m), then a row of the squared norms of ``[q; g]`` and a row of those of ``[k; g]``. One
        tensor, whose gradient is one tensor: of three views, autograd would add up the gradients. Float32 (for float64,
        which the interpreter alone takes, float64); the same bits in every run of one process.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    found: Tensor = _gram(q, k, g, heads)
    return found


def _check(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> None:
    require("gram", device_unsupported_reason(q) or dtype_unsupported_reason(q))
    if q.ndim != 3 or q.numel() == 0 or heads < 1 or q.shape[1] % heads:
        raise InputError(
            f"gram: q is {tuple(q.shape)} with {heads} heads; expected (B, C, N), none of them 0, C a multiple of heads"
        )
    if k.shape != q.shape or k.dtype != q.dtype:
        raise InputError(f"gram: k is {tuple(k.shape)} of {k.dtype}; expected q's {tuple(q.shape)} of {q.dtype}")
    if g is not None and (
        g.ndim != 3 or g.shape[::2] != q.shape[::2] or g.shape[1] % heads or g.shape[1] == 0 or g.dtype != q.dtype
    ):
        raise InputError(
            f"gram: tokens are {tuple(g.shape)} of {g.dtype}; expected ({len(q)}, {heads}*K, {q.shape[2]}), K >= 1, "
            f"of q's {q.dtype}"
        )


def _tokens(q: Tensor, g: Tensor | None, heads: int) -> tuple[Tensor, int]:
    """Returns the tokens and K; without tokens q, as an address that is never read, and 0."""
    return (q, 0) if g is None else (along_pixels(g), g.shape[1] // heads)


def compute(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Tensor:
    """Computes ``gram`` inside of an operator, without gradients: (B, h, m+2, m)."""
    _check(q, k, g, heads)
    q, k = along_pixels(q), along_pixels(k)
    tokens, tokens_per_head = _tokens(q, g, heads)
    batch, channels, pixels = q.shape
    c = channels // heads
    m = c + tokens_per_head
    block = tile_side(m, largest_side(q))
    tiles = divide_up(m, block)
    # A few tiles for each head and image would leave most of the GPU idle: the pixels are split as well.
    split = pixels_per_split(pixels, batch * heads * tiles**2, q.device)
    splits = divide_up(pixels, split)
    partial = torch.empty((splits, batch, heads, m + 2, m), device=q.device, dtype=accumulation_dtype(q.dtype))
    _gram_kernel[(splits * tiles**2, batch * heads)](
        q,
        k,
        tokens,
        partial,
        *q.stride()[:2],
        *k.stride()[:2],
        *tokens.stride()[:2],
        pixels,
        heads,
        C=c,
        K=tokens_per_head,
        SPLIT=split,
        TILES=tiles,
        BLOCK=block,
        ALIGNED=vectorisable(q, k, tokens),
        TYPE=accumulation_type(q.dtype),
        PRECISION=dot_precision(q),
    )
    return summed(partial)


_gram = operator("gram")(compute)


@fake(_gram)
def _(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Tensor:
    m = (q.shape[1] + (0 if g is None else g.shape[1])) // heads
    return q.new_empty((q.shape[0], heads, m + 2, m), dtype=accumulation_dtype(q.dtype))


def gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    g: Tensor | None,
    heads: int,
    into: tuple[Tensor, Tensor, Tensor | None],
    more: Tensor | None = None,
) -> None:
    """Computes the gradients of q, k and g, given that of the Gram blocks.

    Args:
        grad: (B, h, m+2, m).
        q: (B, C, N), as is k.
        k: as q.
        g: tokens, (B, h*K, N), or None.
        heads: h.
        into: what is overwritten: dq and dk, whose rows follow one another in memory, and dg, contiguous, or None.
        more: (B, h*K, N), contiguous, added to dg, or None.
    """
    grad, q, k = grad.contiguous(), along_pixels(q), along_pixels(k)
    tokens, tokens_per_head = _tokens(q, g, heads)
    batch, channels, pixels = q.shape
    c = channels // heads
    # Half as large as forward: the sums da and db and their weights, in float32, have to fit into the registers.
    block = tile_side(c + tokens_per_head, largest_side(q) // 2)
    tiles = divide_up(c + tokens_per_head, block)
    dq, dk, dg = into
    _gram_backward_kernel[lambda meta: (tiles * divide_up(pixels, meta["BLOCK_N"]), batch * heads)](
        grad,
        q,
        k,
        tokens,
        dq,
        dk,
        # Without tokens dk again: the kernel does not write through it.
        dk if dg is None else dg,
        more,
        *q.stride()[:2],
        *k.stride()[:2],
        *tokens.stride()[:2],
        dq.stride(0),
        dk.stride(0),
        pixels,
        heads,
        C=c,
        K=tokens_per_head,
        TILES=tiles,
        BLOCK=block,
        ALIGNED=vectorisable(q, k, tokens),
        TYPE=accumulation_type(q.dtype),
        PRECISION=dot_precision(q),
    )


@operator(
    "gram_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor? g, int heads) -> Tensor[]",
)
def _gram_backward(grad: Tensor, q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> list[Tensor]:
    grads = _empty_gradients(grad, q, k, g, heads)
    gradients(grad, q, k, g, heads, (grads[0], grads[1], None if g is None else grads[2]))
    return grads


@fake(_gram_backward)
def _empty_gradients(grad: Tensor, q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> list[Tensor]:
    return [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in (q, k, g) if x is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, g, ctx.heads = inputs
    ctx.save_for_backward(q, k, g)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, g = ctx.saved_tensors
    dq, dk, *dg = _gram_backward(grad, q, k, g, ctx.heads)
    return dq, dk, dg[0] if dg else None, None


differentiable(_gram, _differentiate, _save)
differentiable_no_more(_gram_backward)
