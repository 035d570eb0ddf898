"""Device functions of the 3x3 stencils, on tiles of CH channels and BX columns (CH, BX) that slide down the rows.

An input row adds to three output rows: two sums are kept instead of nine neighbours.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def halves(x):
    """The even and the odd columns of a (CH, n) tile."""
    return tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))


@triton.jit
def interleaved(even, odd):
    """The (CH, n) tile whose even and odd columns are given."""
    return tl.reshape(tl.join(even, odd), [even.shape[0], even.shape[1] * 2])


@triton.jit
def rows_inside(known, row, begin, end):
    """``known`` (CH, 1), where the row, a number, lies in ``begin`` to ``end`` (exclusive); else nothing.

    As a block from the start: of a block and a number, the interpreter of Triton 3.9 makes no mask.
    """
    row = row + 0 * known.to(tl.int32)
    return known & (row >= begin) & (row < end)


@triton.jit
def load_columns(row, column, W, stride, inside):
    """Columns (1, n) of one row of every channel (CH, 1); 0 outside the map."""
    return tl.load(row + column.to(tl.int64) * stride, mask=inside & (column >= 0) & (column < W), other=0.0)


@triton.jit
def load_shifted(row, column, W, VALID, stride, inside, shift, SHIFTED: tl.constexpr):
    """Likewise, plus one number a channel, (CH, 1) of the dtype of the sums, if SHIFTED: 0 outside the map as well.

    Where VALID is not None, the map ends there, and its rows are W long: what lies between is read, but not used.
    """
    x = load_columns(row, column, W, stride, inside)
    # After the load: a mask that ends within a vector would make it as many loads as it has elements.
    if VALID is None:
        if SHIFTED:
            x = tl.where(inside & (column >= 0) & (column < W), x.to(shift.dtype) + shift, 0.0)
    elif SHIFTED:
        x = tl.where(inside & (column >= 0) & (column < VALID), x.to(shift.dtype) + shift, 0.0)
    else:
        x = tl.where(column < VALID, x, 0.0)
    return x


@triton.jit
def load_row(
    rows,
    row,
    first,
    H,
    W,
    VALID,
    stride_row,
    stride_column,
    known,
    shift,
    SHIFTED: tl.constexpr,
    BX: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
):
    """The columns left of, at and right of the BX that start at ``first``: three (CH, BX) tiles, 0 outside the map.

    Inside it, ``shift`` (CH, 1) is added to each, if SHIFTED. Where it ends before its rows do: see ``load_shifted``.

    A neighbour's address is not aligned: to load the left and the right tile takes one instruction an element. Where
    RUN (1, 4 or 8) aligned columns come in one vector load, their inner neighbours are in the same registers, and only
    those of the two ends are loaded.
    """
    rows += row.to(tl.int64) * stride_row
    inside = rows_inside(known, row, 0, H)
    column = first + tl.arange(0, BX)[None, :]
    centre = load_shifted(rows, column, W, VALID, stride_column, inside, shift, SHIFTED)
    if RUN == 1:
        left = load_shifted(rows, column - 1, W, VALID, stride_column, inside, shift, SHIFTED)
        right = load_shifted(rows, column + 1, W, VALID, stride_column, inside, shift, SHIFTED)
    else:
        # Of a tile of the ends alone, other threads than those of the run would load them, and wait for each other. Of
        # one of all columns the compiler sees that most masks are always false, and leaves out what they forbid.
        place = tl.arange(0, BX)[None, :] % RUN
        left = load_shifted(rows, column - 1, W, VALID, stride_column, inside & (place == 0), shift, SHIFTED)
        right = load_shifted(rows, column + 1, W, VALID, stride_column, inside & (place == RUN - 1), shift, SHIFTED)
        left, _ = halves(left)
        left, _ = halves(left)
        _, right = halves(right)
        _, right = halves(right)
        if RUN == 8:
            left, _ = halves(left)
            _, right = halves(right)
        even, odd = halves(centre)
        even0, even1 = halves(even)
        odd0, odd1 = halves(odd)
        if RUN == 8:
            _, even01 = halves(even0)
            odd10, _ = halves(odd1)
            left = interleaved(left, odd10)
            right = interleaved(even01, right)
        left = interleaved(interleaved(left, odd0), even)
        right = interleaved(odd, interleaved(even1, right))
    return left.to(TYPE), centre.to(TYPE), right.to(TYPE)


@triton.jit
def load_taps(weight, channel, inside, TYPE: tl.constexpr):
    """The nine weights of every channel (CH, 1), row by row."""
    at = weight + channel * 9
    return (
        tl.load(at, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 1, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 2, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 3, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 4, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 5, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 6, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 7, mask=inside, other=0.0).to(TYPE),
        tl.load(at + 8, mask=inside, other=0.0).to(TYPE),
    )


@triton.jit
def load_bias(bias, channel, inside, TYPE: tl.constexpr):
    """The bias of every channel (CH, 1), or 0."""
    if bias is None:
        return tl.full([channel.shape[0], 1], 0.0, TYPE)
    else:
        return tl.load(bias + channel, mask=inside, other=0.0).to(TYPE)


@triton.jit
def slide(upper, lower, bias, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8):
    """Takes in one input row: the output row above it, now whole, and the sums of its own row and of the one below.

    ``upper`` lacks the last of its three input rows, ``lower`` the last two.
    """
    # From left to right, so that each product is one fused multiply-add.
    whole = upper + w6 * left + w7 * centre + w8 * right
    upper = lower + w3 * left + w4 * centre + w5 * right
    lower = bias + w0 * left + w1 * centre + w2 * right
    return whole, upper, lower


@triton.jit
def block(CHANNELS, H, W, CH: tl.constexpr, BX: tl.constexpr, RY: tl.constexpr):
    """This program's part of the maps: image, channels (CH, 1), first row, first column.

    Columns run fastest, then rows: neighbours share rows in the cache.
    """
    program = tl.program_id(0)
    columns = (W + BX - 1) // BX
    rows = (H + RY - 1) // RY
    groups = (CHANNELS + CH - 1) // CH
    image = program // columns // rows // groups
    channel = program // columns // rows % groups * CH + tl.arange(0, CH)[:, None]
    # Offsets into maps of 2^31 elements and more are made of these two.
    return image.to(tl.int64), channel.to(tl.int64), program // columns % rows * RY, program % columns * BX
