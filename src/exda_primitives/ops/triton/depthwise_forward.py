"""``act(z)``, ``z = DW(X + shift)``, in one pass; or, given the gradient dy of act(z), ``dz = dy * act'(z)``.

X is read once (neighbouring columns come from registers or the cache) and the output is written once; z is never
stored, the second form computes it again.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .gelu import gelu, gelu_derivative
from .kernel import autotuned
from .launch import column_block, contiguous, divide_up, row_aligned
from .stencil import block, load_bias, load_columns, load_row, load_taps, rows_inside, slide
from .tiles import accumulation_type

# LANES: threads of a program; each loads one vector of a row. RY: rows that a program writes; it reads two more.
# Unrolling more rows keeps more loads in flight, but four rows of the gate take 150 registers, and the code of all 16
# exceeds the instruction cache.
CONFIGS = [
    triton.Config({"LANES": 128, "RY": 16, "UNROLL": 2}, num_warps=4),
    triton.Config({"LANES": 128, "RY": 16, "UNROLL": 4}, num_warps=4),
    triton.Config({"LANES": 128, "RY": 32, "UNROLL": 2}, num_warps=4),
    triton.Config({"LANES": 128, "RY": 8, "UNROLL": 2}, num_warps=4),
    triton.Config({"LANES": 64, "RY": 16, "UNROLL": 2}, num_warps=2),
]


@autotuned(*CONFIGS)
@triton.jit
def depthwise_kernel(
    x,
    weight,
    bias,
    shift,
    dy,
    out,
    CHANNELS,
    H,
    W,
    VALID,
    x_image,
    x_channel,
    x_row,
    x_column,
    dy_image,
    dy_channel,
    dy_row,
    dy_column,
    ACTIVATION: tl.constexpr,
    WIDTH: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
    LANES: tl.constexpr,
    RY: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Writes the activation of z or, if ``dy`` is given, the gradient of z, into a contiguous ``out``.

    CHANNELS are those of the activation's output; with the gate, z has twice as many. If VALID is not None, the maps
    are VALID wide in rows of W elements; the rest of each row is written as zeros.
    """
    # The tile is (CH, BX): of maps narrower than TILE columns, a program takes several channels. The same as `tile`.
    TILE: tl.constexpr = LANES * (RUN if RUN > 1 else 2)
    BX: tl.constexpr = WIDTH if WIDTH < TILE else TILE
    CH: tl.constexpr = TILE // BX
    GATE: tl.constexpr = ACTIVATION == "gate"
    SHIFTED: tl.constexpr = shift is not None
    # The result is rounded to 16 bits: a GELU of that precision will do.
    HALF: tl.constexpr = out.dtype.element_ty != TYPE
    image, channel, top, first = block(CHANNELS, H, W, CH, BX, RY)
    known = channel < CHANNELS
    column = first + tl.arange(0, BX)[None, :]
    out_channels = 2 * CHANNELS if GATE and dy is not None else CHANNELS

    x += image * x_image
    a_rows = x + channel * x_channel
    a_bias = load_bias(bias, channel, known, TYPE)
    a_shift = load_bias(shift, channel, known, TYPE)
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = load_taps(weight, channel, known, TYPE)
    a_upper, a_lower = a_bias, a_bias
    out += image * out_channels * H * W + column
    a_out = out + channel * H * W
    if GATE:
        # a is z1, from the first half of z's channels; b is z2, from the same channel of the second half.
        partner = channel + CHANNELS
        b_rows = x + partner * x_channel
        b_bias = load_bias(bias, partner, known, TYPE)
        b_shift = load_bias(shift, partner, known, TYPE)
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = load_taps(weight, partner, known, TYPE)
        b_upper, b_lower = b_bias, b_bias
        b_out = out + partner * H * W
    if dy is not None:
        dy += image * dy_image + channel * dy_channel

    # Input rows top - 1 and top: they start the sums of the first two output rows and complete none.
    for i in tl.static_range(2):
        row = top - 1 + i
        left, centre, right = load_row(
            a_rows, row, first, H, W, VALID, x_row, x_column, known, a_shift, SHIFTED, BX, RUN, TYPE
        )
        a, a_upper, a_lower = slide(a_upper, a_lower, a_bias, left, centre, right, a0, a1, a2, a3, a4, a5, a6, a7, a8)
        if GATE:
            left, centre, right = load_row(
                b_rows, row, first, H, W, VALID, x_row, x_column, known, b_shift, SHIFTED, BX, RUN, TYPE
            )
            b, b_upper, b_lower = slide(
                b_upper, b_lower, b_bias, left, centre, right, b0, b1, b2, b3, b4, b5, b6, b7, b8
            )
    # Input row `row + 1` completes output row `row`.
    for start in range(0, RY, UNROLL):
        for i in tl.static_range(UNROLL):
            row = top + start + i
            left, centre, right = load_row(
                a_rows, row + 1, first, H, W, VALID, x_row, x_column, known, a_shift, SHIFTED, BX, RUN, TYPE
            )
            a, a_upper, a_lower = slide(
                a_upper, a_lower, a_bias, left, centre, right, a0, a1, a2, a3, a4, a5, a6, a7, a8
            )
            if GATE:
                left, centre, right = load_row(
                    b_rows, row + 1, first, H, W, VALID, x_row, x_column, known, b_shift, SHIFTED, BX, RUN, TYPE
                )
                b, b_upper, b_lower = slide(
                    b_upper, b_lower, b_bias, left, centre, right, b0, b1, b2, b3, b4, b5, b6, b7, b8
                )
            inside = rows_inside(known, row, 0, H)
            offset = row.to(tl.int64) * W
            if dy is not None:
                upstream = load_columns(dy + row.to(tl.int64) * dy_row, column, W, dy_column, inside).to(TYPE)
                # dz = dy GELU'(z); with the gate, dz2 = dy GELU(z1) and dz1 = dy z2 GELU'(z1).
                if GATE:
                    b_gradient = upstream * gelu(a, HALF)
                    tl.store(b_out + offset, b_gradient.to(out.dtype.element_ty), mask=inside & (column < W))
                    upstream *= b
                a = upstream * gelu_derivative(a, HALF)
            elif ACTIVATION != "none":
                a = gelu(a, HALF)
                if GATE:
                    a *= b
            if VALID is not None:
                # Whole rows are read from here on: zeros add nothing to sums over the pixels (Gram blocks).
                a = tl.where(column < VALID, a, 0.0)
            tl.store(a_out + offset, a.to(out.dtype.element_ty), mask=inside & (column < W))


def run_length(x: Tensor) -> int:
    """Columns of ``x`` (B, M, H, W) that one vector load of 16 bytes holds; 1 where rows are not aligned."""
    aligned = row_aligned(x) and x.element_size() in (2, 4)
    return 16 // x.element_size() if aligned else 1


def tile(width: int, run: int, lanes: int) -> tuple[int, int]:
    """Returns the tile of a program of ``lanes`` threads: channels and columns.

    A thread has ``run`` pixels of one row. Without vector loads (``run`` 1) it has two, most often of two channels;
    with eight it would have to hold the weights of eight.
    """
    pixels = lanes * (run if run > 1 else 2)
    columns = min(column_block(width), pixels)
    return pixels // columns, columns


def fill(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shift: Tensor | None,
    dy: Tensor | None,
    out: Tensor,
    activation: str,
    valid: int | None = None,
) -> None:
    """Fills a contiguous ``out`` with the activation of z or, if ``dy`` is given, with the gradient of z.

    If ``valid`` is not None, the maps are ``valid`` wide in longer rows (``pitch``).
    """
    channels, (height, width) = x.shape[1] // (2 if activation == "gate" else 1), x.shape[2:]
    run = run_length(x)

    def grid(meta: dict[str, int]) -> tuple[int]:
        group, columns = tile(width, run, meta["LANES"])
        return (len(x) * divide_up(channels, group) * divide_up(height, meta["RY"]) * divide_up(width, columns),)

    depthwise_kernel[grid](
        x,
        weight.contiguous(),
        contiguous(bias),
        contiguous(shift),
        dy,
        out,
        channels,
        height,
        width,
        valid,
        *x.stride(),
        *((0, 0, 0, 0) if dy is None else dy.stride()),
        ACTIVATION=activation,
        WIDTH=column_block(width),
        RUN=run,
        TYPE=accumulation_type(x.dtype),
    )
