"""Device functions of the 3x3 stencils, on tiles of CH channels by BX columns, (CH, BX), that slide down the rows.

An input row adds to three output rows. A program keeps the sums of two unfinished output rows instead of the nine
neighbours of every pixel.
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
    """``known`` (CH, 1) if the row, a number, is in ``begin`` to ``end`` (exclusive); else all False."""
    # The number becomes a block first: from a block and a number, Triton 3.9's interpreter makes no mask.
    row = row + 0 * known.to(tl.int32)
    return known & (row >= begin) & (row < end)


@triton.jit
def load_columns(row, column, W, stride, inside):
    """Loads columns (1, n) of one row of every channel (CH, 1) as a (CH, n) tile; 0 outside the map."""
    return tl.load(row + column.to(tl.int64) * stride, mask=inside & (column >= 0) & (column < W), other=0.0)


@triton.jit
def load_shifted(row, column, W, VALID, stride, inside, shift, SHIFTED: tl.constexpr):
    """``load_columns``, plus ``shift`` (CH, 1), of the dtype of the sums, if SHIFTED; 0 outside the map as well.

    If VALID is not None, the map is VALID wide in rows of W elements: the elements between are read, but taken as 0.
    """
    x = load_columns(row, column, W, stride, inside)
    # Masked after the load: a load whose mask ends within a vector is done element by element.
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
    """Loads the BX columns from ``first`` on, and their left and right neighbours: three (CH, BX) tiles of TYPE.

    They are 0 outside the map; inside, ``shift`` (CH, 1) is added if SHIFTED. VALID is as in ``load_shifted``.

    A neighbour's address is not aligned: loading the left and the right tile takes one instruction an element. Where
    RUN (4 or 8) aligned columns, a run, come in one vector load, their inner neighbours are in the same thread's
    registers, and only the neighbours of its two ends are loaded. RUN is 1 where there are no vector loads.
    """
    rows += row.to(tl.int64) * stride_row
    inside = rows_inside(known, row, 0, H)
    column = first + tl.arange(0, BX)[None, :]
    centre = load_shifted(rows, column, W, VALID, stride_column, inside, shift, SHIFTED)
    if RUN == 1:
        left = load_shifted(rows, column - 1, W, VALID, stride_column, inside, shift, SHIFTED)
        right = load_shifted(rows, column + 1, W, VALID, stride_column, inside, shift, SHIFTED)
    else:
        # As tiles of all columns, whose loads are the run's own threads': the compiler sees that all masks but those of
        # the ends are always false, and drops these loads. A tile of the ends alone would be loaded by other threads,
        # which would have to wait for each other.
        place = tl.arange(0, BX)[None, :] % RUN
        left = load_shifted(rows, column - 1, W, VALID, stride_column, inside & (place == 0), shift, SHIFTED)
        right = load_shifted(rows, column + 1, W, VALID, stride_column, inside & (place == RUN - 1), shift, SHIFTED)
        # Each second column, again and again, leaves one element a run: the left and the right end's neighbour.
        left, _ = halves(left)
        left, _ = halves(left)
        _, right = halves(right)
        _, right = halves(right)
        if RUN == 8:
            left, _ = halves(left)
            _, right = halves(right)
        # Columns of a run of 8: even 0 2 4 6, odd 1 3 5 7, even0 0 4, even1 2 6, odd0 1 5, odd1 3 7. Then
        # left = -1 0 1 2 3 4 5 6: at even places -1 1 3 5, at odd ones `even`;
        # right = 1 2 3 4 5 6 7 8: at even places `odd`, at odd ones 2 4 6 8.
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
    """Loads the nine weights of every channel, row by row, (CH, 1) each."""
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
    """Loads the bias of every channel, (CH, 1); 0 if it is None."""
    if bias is None:
        return tl.full([channel.shape[0], 1], 0.0, TYPE)
    else:
        return tl.load(bias + channel, mask=inside, other=0.0).to(TYPE)


@triton.jit
def slide(upper, lower, bias, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8):
    """Adds one input row; returns the output row above it, now whole, and the sums of its own row and the one below.

    Before, ``upper`` (the row above) lacks the last of its three input rows, ``lower`` (its own row) the last two.
    """
    # To output row y, input row y - 1 adds weights w0 w1 w2, row y w3 w4 w5, row y + 1 w6 w7 w8.
    # Summed from left to right, so that each product is one fused multiply-add.
    whole = upper + w6 * left + w7 * centre + w8 * right
    upper = lower + w3 * left + w4 * centre + w5 * right
    lower = bias + w0 * left + w1 * centre + w2 * right
    return whole, upper, lower


@triton.jit
def block(CHANNELS, H, W, CH: tl.constexpr, BX: tl.constexpr, RY: tl.constexpr):
    """Returns this program's part of the maps: image, channels (CH, 1), first row, first column.

    Programs are numbered by columns first, then rows: those that run together share input rows in the cache.
    """
    program = tl.program_id(0)
    columns = (W + BX - 1) // BX
    rows = (H + RY - 1) // RY
    groups = (CHANNELS + CH - 1) // CH
    image = program // columns // rows // groups
    channel = program // columns // rows % groups * CH + tl.arange(0, CH)[:, None]
    # int64, since offsets into maps of 2^31 elements and more are computed from these two.
    return image.to(tl.int64), channel.to(tl.int64), program // columns % rows * RY, program % columns * BX
