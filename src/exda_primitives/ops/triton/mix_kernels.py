"""The kernels of ``mix``: the sum of products, the gradients of its maps, and those of its matrices.

Of the configurations, the interpreter takes the first. 8 warps come first where registers spill in 4; those that do not
fit the GPU are passed over (``kernel.Kernel``).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import autotuned
from .tiles import dot, scaled_dot

# Up to this many channels (tokens), a sum of outer products in float32 is cheaper than tl.dot, which takes 16 at least:
# its tile would be mostly padding.
_FEW: tl.constexpr = tl.constexpr(8)


@triton.jit
def _add_product(
    acc: tl.tensor,
    matrix: tl.tensor,
    matrix_row: tl.tensor,
    x: tl.tensor,
    x_row: tl.tensor,
    o: tl.tensor,
    n: tl.tensor,
    N: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    SCALED: tl.constexpr,
    TRANSPOSED: tl.constexpr,
) -> tl.tensor:
    """Returns ``acc + M[o] X[:, n]``, (BLOCK_O, BLOCK_N), for a matrix and a map at the given addresses.

    TRANSPOSED: the rows in memory are those of M^T, (C, ROWS).

    If SCALED and X is float16, each row of M is divided by its largest number before it is rounded: M_g of tokens that
    sum to 1 over the image holds factors 1 / cells, which float16 rounds to 0 or to few bits.
    """
    known = o < ROWS
    # Steps in memory from one column of M to the next.
    step = matrix_row if TRANSPOSED else 1
    rows = matrix + (o if TRANSPOSED else o.to(tl.int64) * matrix_row)
    if C <= _FEW:
        # A loop: unrolled (static_range), it would load all C rows ahead, and registers would spill.
        for i in range(C):
            column = tl.load(rows + i * step, mask=known, other=0.0).to(acc.dtype)
            row = tl.load(x + n, mask=n < N, other=0.0).to(acc.dtype)
            acc += column[:, None] * row[None, :]
            x += x_row
    else:
        FACTORS: tl.constexpr = SCALED and x.dtype.element_ty == tl.float16
        if FACTORS:
            # size[o] = max_i |M[o, i]|; at least 1e-20, since rows of zeros are divided by it.
            size = tl.full(o.shape, 1e-20, acc.dtype)
            for first in range(0, C, BLOCK_C):
                i = first + tl.arange(0, BLOCK_C)
                weight = tl.load(
                    rows[:, None] + (i * step)[None, :], mask=(o < ROWS)[:, None] & (i < C)[None, :], other=0.0
                )
                size = tl.maximum(size, tl.max(tl.abs(weight.to(acc.dtype)), 1))
            # acc + M X = size (acc / size + (M / size) X): one accumulator, in float32, for all pairs.
            acc = acc / size[:, None]
        for first in range(0, C, BLOCK_C):
            i = first + tl.arange(0, BLOCK_C)
            weight = tl.load(
                rows[:, None] + (i * step)[None, :], mask=(o < ROWS)[:, None] & (i < C)[None, :], other=0.0
            )
            if FACTORS:
                weight = weight.to(acc.dtype) / size[:, None]
            tile = tl.load(
                x + (i.to(tl.int64) * x_row)[:, None] + n[None, :], mask=(i < C)[:, None] & (n < N)[None, :], other=0.0
            )
            # The matrix is rounded to the map's dtype: tensor cores take two operands of one dtype.
            acc = dot(weight.to(tile.dtype), tile, acc, PRECISION)
        if FACTORS:
            acc = acc * size[:, None]
    return acc


@autotuned(
    triton.Config({"BLOCK_N": 128, "BLOCK_C": 32}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 128, "BLOCK_C": 32}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_N": 256, "BLOCK_C": 16}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 128, "BLOCK_C": 64}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_N": 64, "BLOCK_C": 32}, num_warps=4, num_stages=3),
)
@triton.jit
def mix_kernel(
    m0: tl.tensor,
    m1: tl.tensor,
    m2: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    shift: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    m0_image: tl.tensor,
    m1_image: tl.tensor,
    m2_image: tl.tensor,
    m0_row: tl.tensor,
    m1_row: tl.tensor,
    m2_row: tl.tensor,
    x0_image: tl.tensor,
    x1_image: tl.tensor,
    x2_image: tl.tensor,
    x0_row: tl.tensor,
    x1_row: tl.tensor,
    x2_row: tl.tensor,
    shift_image: tl.tensor,
    shift_row: tl.tensor,
    residual_image: tl.tensor,
    residual_row: tl.tensor,
    out_image: tl.tensor,
    N: tl.tensor,
    ROWS: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    SHIFT: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Computes BLOCK_O rows and BLOCK_N pixels of one image; programs are (pixel blocks * row tiles, images)."""
    # The row tiles of a block of pixels are neighbouring programs: they read the same pixels, which the cache holds.
    tiles = tl.cdiv(ROWS, BLOCK_O)
    o = (tl.program_id(0) % tiles) * BLOCK_O + tl.arange(0, BLOCK_O)
    n = (tl.program_id(0) // tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    image = tl.program_id(1).to(tl.int64)
    acc = tl.zeros((BLOCK_O, BLOCK_N), TYPE)
    m0 += image * m0_image
    x0 += image * x0_image
    # Not SCALED: tokens are never the first pair.
    acc = _add_product(acc, m0, m0_row, x0, x0_row, o, n, N, ROWS, C0, BLOCK_C, PRECISION, False, TRANSPOSED)
    if C1 > 0:
        m1 += image * m1_image
        x1 += image * x1_image
        acc = _add_product(acc, m1, m1_row, x1, x1_row, o, n, N, ROWS, C1, BLOCK_C, PRECISION, True, TRANSPOSED)
    if C2 > 0:
        m2 += image * m2_image
        x2 += image * x2_image
        acc = _add_product(acc, m2, m2_row, x2, x2_row, o, n, N, ROWS, C2, BLOCK_C, PRECISION, True, TRANSPOSED)
    mask = (o < ROWS)[:, None] & (n < N)[None, :]
    if SHIFT:
        constant = tl.load(shift + image * shift_image + o * shift_row, mask=o < ROWS, other=0.0)
        acc += constant.to(TYPE)[:, None]
    if RESIDUAL:
        rows = residual + image * residual_image + o.to(tl.int64) * residual_row
        acc += tl.load(rows[:, None] + n[None, :], mask=mask, other=0.0).to(TYPE)
    rows = out + image * out_image + o.to(tl.int64) * N
    tl.store(rows[:, None] + n[None, :], acc.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _select_pair(
    tile: tl.tensor, END0: tl.constexpr, END1: tl.constexpr, first: tl.tensor, second: tl.tensor, third: tl.tensor
) -> tl.tensor:
    """Returns the argument of the pair that owns a tile: tiles below END0 are the first's, below END1 the second's."""
    return tl.where(tile < END0, first, tl.where(tile < END1, second, third))


@autotuned(
    triton.Config({"BLOCK_N": 128, "BLOCK_O": 32}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK_N": 128, "BLOCK_O": 64}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_N": 64, "BLOCK_O": 32}, num_warps=4, num_stages=3),
)
@triton.jit
def map_gradients_kernel(
    grad: tl.tensor,
    m0: tl.tensor,
    m1: tl.tensor,
    m2: tl.tensor,
    dx0: tl.tensor,
    dx1: tl.tensor,
    dx2: tl.tensor,
    grad_image: tl.tensor,
    grad_row: tl.tensor,
    m0_image: tl.tensor,
    m1_image: tl.tensor,
    m2_image: tl.tensor,
    m0_row: tl.tensor,
    m1_row: tl.tensor,
    m2_row: tl.tensor,
    N: tl.tensor,
    ROWS: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Computes BLOCK_C channels and BLOCK_N pixels of ``dX_i = M_i^T D`` for one map of one image.

    Programs are (pixel blocks * tiles of all maps' channels, images).
    """
    END0: tl.constexpr = (C0 + BLOCK_C - 1) // BLOCK_C
    END1: tl.constexpr = END0 + (C1 + BLOCK_C - 1) // BLOCK_C
    END2: tl.constexpr = END1 + (C2 + BLOCK_C - 1) // BLOCK_C
    tile = tl.program_id(0) % END2
    n = (tl.program_id(0) // END2) * BLOCK_N + tl.arange(0, BLOCK_N)
    image = tl.program_id(1).to(tl.int64)
    channels = _select_pair(tile, END0, END1, C0, C1, C2)
    i = (tile - _select_pair(tile, END0, END1, 0, END0, END1)) * BLOCK_C + tl.arange(0, BLOCK_C)
    matrix = _select_pair(tile, END0, END1, m0 + image * m0_image, m1 + image * m1_image, m2 + image * m2_image)
    matrix_row = _select_pair(tile, END0, END1, m0_row, m1_row, m2_row)
    dx = _select_pair(tile, END0, END1, dx0, dx1, dx2)

    acc = tl.zeros((BLOCK_C, BLOCK_N), TYPE)
    for first in range(0, ROWS, BLOCK_O):
        o = first + tl.arange(0, BLOCK_O)
        # M^T, (BLOCK_C, BLOCK_O)
        weight = tl.load(
            matrix + i[:, None] + (o.to(tl.int64) * matrix_row)[None, :],
            mask=(i < channels)[:, None] & (o < ROWS)[None, :],
            other=0.0,
        )
        rows = grad + image * grad_image + o.to(tl.int64) * grad_row
        tile_of_grad = tl.load(rows[:, None] + n[None, :], mask=(o < ROWS)[:, None] & (n < N)[None, :], other=0.0)
        # Scaled, since M_g of tokens that sum to 1 over the image holds factors that float16 cannot.
        acc = scaled_dot(weight.to(TYPE), tile_of_grad, acc, PRECISION, False)
    rows = dx + (image * channels + i) * N
    tl.store(rows[:, None] + n[None, :], acc.to(dx.dtype.element_ty), mask=(i < channels)[:, None] & (n < N)[None, :])


@autotuned(
    triton.Config({"BLOCK_N": 64}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 128}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_N": 64}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_N": 32}, num_warps=8, num_stages=3),
)
@triton.jit
def matrix_gradients_kernel(
    grad: tl.tensor,
    x0: tl.tensor,
    x1: tl.tensor,
    x2: tl.tensor,
    partial: tl.tensor,
    grad_image: tl.tensor,
    grad_row: tl.tensor,
    x0_image: tl.tensor,
    x1_image: tl.tensor,
    x2_image: tl.tensor,
    x0_row: tl.tensor,
    x1_row: tl.tensor,
    x2_row: tl.tensor,
    N: tl.tensor,
    ROWS: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sums a BLOCK_O x BLOCK_C tile of ``dM_i = D X_i^T`` over the pixels of one split, and sums of pixels.

    ``partial`` is (splits, B, size), the size that of all dM_i, (O, C_i) each, one after the other, then dshift = D 1,
    (O,). TRANSPOSED, where D is what several weights multiply and X_i the gradients of their products: the weights'
    gradients ``X_i D^T``, (C_i, O) each, then the biases', the sums of all X_i, (sum C_i,). Programs are (splits * row
    tiles * tiles of all maps' channels, images).
    """
    END0: tl.constexpr = (C0 + BLOCK_C - 1) // BLOCK_C
    END1: tl.constexpr = END0 + (C1 + BLOCK_C - 1) // BLOCK_C
    END2: tl.constexpr = END1 + (C2 + BLOCK_C - 1) // BLOCK_C
    TILES: tl.constexpr = (ROWS + BLOCK_O - 1) // BLOCK_O
    WIDTH: tl.constexpr = C0 + C1 + C2
    SIZE: tl.constexpr = ROWS * WIDTH + (WIDTH if TRANSPOSED else ROWS)
    tile = tl.program_id(0) % END2
    o = (tl.program_id(0) // END2 % TILES) * BLOCK_O + tl.arange(0, BLOCK_O)
    part = tl.program_id(0) // (END2 * TILES)
    image = tl.program_id(1).to(tl.int64)
    channels = _select_pair(tile, END0, END1, C0, C1, C2)
    i = (tile - _select_pair(tile, END0, END1, 0, END0, END1)) * BLOCK_C + tl.arange(0, BLOCK_C)
    x = _select_pair(tile, END0, END1, x0 + image * x0_image, x1 + image * x1_image, x2 + image * x2_image)
    x_rows = x + i.to(tl.int64) * _select_pair(tile, END0, END1, x0_row, x1_row, x2_row)
    grad_rows = grad + image * grad_image + o.to(tl.int64) * grad_row

    acc = tl.zeros((BLOCK_O, BLOCK_C), TYPE)
    total = tl.zeros((BLOCK_C if TRANSPOSED else BLOCK_O,), TYPE)
    # The bound is a constant, and pixels beyond N are masked: the interpreter of Triton 3.2 takes no computed bound.
    for first in range(0, SPLIT, BLOCK_N):
        n = part * SPLIT + first + tl.arange(0, BLOCK_N)
        d = tl.load(grad_rows[:, None] + n[None, :], mask=(o < ROWS)[:, None] & (n < N)[None, :], other=0.0)
        b = tl.load(x_rows[:, None] + n[None, :], mask=(i < channels)[:, None] & (n < N)[None, :], other=0.0)
        acc = dot(d, tl.trans(b), acc, PRECISION)
        total += tl.sum((b if TRANSPOSED else d).to(TYPE), 1)

    sums = partial + (part.to(tl.int64) * tl.num_programs(1) + image) * SIZE
    before = _select_pair(tile, END0, END1, 0, C0, C0 + C1)
    known = (o < ROWS)[:, None] & (i < channels)[None, :]
    # All tiles of the same rows (of D, or of a map) have the same ``total``: the first writes it. ``+ 0 * o`` and
    # ``+ 0 * i`` make a number a block.
    if TRANSPOSED:
        tl.store(sums + before * ROWS + i[None, :] * ROWS + o[:, None], acc, mask=known)
        first_rows = tl.program_id(0) // END2 % TILES
        tl.store(sums + ROWS * WIDTH + before + i, total, mask=(i < channels) & (first_rows + 0 * i == 0))
    else:
        tl.store(sums + before * ROWS + o[:, None] * channels + i[None, :], acc, mask=known)
        tl.store(sums + ROWS * WIDTH + o, total, mask=(o < ROWS) & (tile + 0 * o == 0))
