"""The gradients of ``compose``, by one launch.

With dP the gradient of ``P = M W`` and ds that of ``s = M b``, for each image

    dM = dP W^T + ds b^T,

and, summed over the images, ``dW = M^T dP`` and ``db = M^T ds``. Programs of both kinds are one launch: all matrices
are small, and none would fill a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import single_config
from .tiles import dot


@triton.jit
def _of_matrix(
    grad: tl.tensor,
    shift_grad: tl.tensor,
    direct: tl.tensor,
    weight: tl.tensor,
    vector: tl.tensor,
    d_matrix: tl.tensor,
    c: tl.tensor,
    o: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes rows ``o`` and columns ``c`` of one image's dM; its tensors start at the image."""
    inside = (o < ROWS)[:, None] & (c < C)[None, :]
    # ds b^T
    constant = tl.load(vector + c, mask=c < C, other=0.0).to(TYPE)
    acc = tl.load(shift_grad + o, mask=o < ROWS, other=0.0)[:, None] * constant[None, :]
    if direct is not None:
        acc += tl.load(direct + o[:, None] * C + c[None, :], mask=inside, other=0.0)
    for first in range(0, COLUMNS, BLOCK):
        j = first + tl.arange(0, BLOCK)
        known = (o < ROWS)[:, None] & (j < COLUMNS)[None, :]
        upstream = tl.load(grad + o[:, None] * COLUMNS + j[None, :], mask=known, other=0.0)
        # W^T, (BLOCK of columns, BLOCK of channels)
        known = (j < COLUMNS)[:, None] & (c < C)[None, :]
        turned = tl.load(weight + c[None, :] * COLUMNS + j[:, None], mask=known, other=0.0)
        acc = dot(upstream, turned.to(TYPE), acc, "ieee")
    tl.store(d_matrix + o[:, None] * C + c[None, :], acc, mask=inside)


@triton.jit
def _of_convolution(
    grad: tl.tensor,
    shift_grad: tl.tensor,
    matrix: tl.tensor,
    d_convolution: tl.tensor,
    grad_image: tl.tensor,
    shift_image: tl.tensor,
    batch: tl.tensor,
    c: tl.tensor,
    tile: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes rows ``c`` and the columns of one tile of dW; the programs of the first tile write db, too."""
    j = tile * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), TYPE)
    total = tl.zeros((BLOCK,), TYPE)
    for _ in range(batch):
        for first in range(0, ROWS, BLOCK):
            o = first + tl.arange(0, BLOCK)
            # M^T, (BLOCK of channels, BLOCK of rows)
            known = (c < C)[:, None] & (o < ROWS)[None, :]
            turned = tl.load(matrix + o[None, :] * C + c[:, None], mask=known, other=0.0)
            known = (o < ROWS)[:, None] & (j < COLUMNS)[None, :]
            upstream = tl.load(grad + o[:, None] * COLUMNS + j[None, :], mask=known, other=0.0)
            acc = dot(turned, upstream, acc, "ieee")
            total += tl.sum(turned * tl.load(shift_grad + o, mask=o < ROWS, other=0.0)[None, :], 1)
        matrix += ROWS * C
        grad += grad_image
        shift_grad += shift_image
    tl.store(d_convolution + c[:, None] * COLUMNS + j[None, :], acc, mask=(c < C)[:, None] & (j < COLUMNS)[None, :])
    # A block, as in ``fold_branch_kernel``.
    tl.store(d_convolution + C * COLUMNS + c, total, mask=(c < C) & (tile + 0 * c == 0))


@single_config
@triton.jit
def compose_backward_kernel(
    grad: tl.tensor,
    shift_grad: tl.tensor,
    direct: tl.tensor,
    matrix: tl.tensor,
    weight: tl.tensor,
    vector: tl.tensor,
    d_matrix: tl.tensor,
    d_convolution: tl.tensor,
    grad_image: tl.tensor,
    shift_image: tl.tensor,
    direct_image: tl.tensor,
    batch: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    """Computes BLOCK rows and columns of dM of one image, or of dW; the programs of dM come first.

    ``grad`` is dP, (B, ROWS, COLUMNS), ``shift_grad`` ds, (B, ROWS), ``direct`` is added to dM, (B, ROWS, C), or is
    None; of all three, images may be any distance apart. ``d_convolution`` is dW, (C, COLUMNS), then db, (C,).
    """
    CHANNEL_TILES: tl.constexpr = (C + BLOCK - 1) // BLOCK
    ROW_TILES: tl.constexpr = (ROWS + BLOCK - 1) // BLOCK
    c = tl.program_id(0) % CHANNEL_TILES * BLOCK + tl.arange(0, BLOCK)
    tile = tl.program_id(0) // CHANNEL_TILES
    if tile < batch * ROW_TILES:
        image = (tile // ROW_TILES).to(tl.int64)
        o = tile % ROW_TILES * BLOCK + tl.arange(0, BLOCK)
        if direct is not None:
            direct += image * direct_image
        grad += image * grad_image
        shift_grad += image * shift_image
        d_matrix += image * ROWS * C
        _of_matrix(grad, shift_grad, direct, weight, vector, d_matrix, c, o, ROWS, C, COLUMNS, BLOCK, TYPE)
    else:
        tile -= batch * ROW_TILES
        _of_convolution(
            grad,
            shift_grad,
            matrix,
            d_convolution,
            grad_image,
            shift_image,
            batch,
            c,
            tile,
            ROWS,
            C,
            COLUMNS,
            BLOCK,
            TYPE,
        )
