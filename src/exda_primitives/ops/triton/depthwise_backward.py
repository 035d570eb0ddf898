"""The gradients of a 3x3 depthwise convolution, given the gradient of its activation's output.

``dX[m, y, x] = sum_ij weight[m, i, j] dz[m, y - i + 1, x - j + 1]`` and
``dweight[m, i, j] = sum_yx (X[m, y, x] + shift[m]) dz[m, y - i + 1, x - j + 1]`` take the same nine neighbours of dz:
one pass reads dz and X and writes dX. ``dbias[m] = sum_yx dz[m, y, x]``. Every program writes its part of the sums to a
buffer; they are added up in a fixed order, to the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import accumulation_dtype
from . import depthwise_forward
from .kernel import single_config
from .launch import contiguous, divide_up, summed
from .operator import differentiable_no_more, fake, operator
from .packed import parameter_gradients
from .stencil import block, load_bias, load_row, load_shifted, load_taps, rows_inside, slide
from .tiles import accumulation_type

# Not tuned: the size of the buffer for the partial sums depends on them.
LANES, ROWS, UNROLL, WARPS = 128, 16, 2, 4
# Sums of each channel: nine weights and the bias. Kernels take no globals but constexpr.
SUMS: tl.constexpr = tl.constexpr(10)


@triton.jit
def over_runs(x, RUN: tl.constexpr):
    """Sums a tile (CH, n) over RUN neighbouring columns, which one thread holds: (CH, n / RUN)."""
    return x if RUN == 1 else tl.sum(tl.reshape(x, [x.shape[0], x.shape[1] // RUN, RUN]), 2)


@triton.jit
def correlate(above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8, RUN: tl.constexpr):
    """Adds what one row of dz and the three rows of X around it give to the gradients of the nine weights.

    ``above``, ``here``, ``below`` are (CH, BX) tiles of X at the rows before, of and after that of dz; ``left``,
    ``centre``, ``right`` those of dz; the sums are (CH, BX / RUN), s0 to s8 row by row of the weights.
    """
    # With dz at row r, weight (i, j) takes X at row r + i - 1 and column x, dz at column x - j + 1 (j = 0: right).
    # One sum a thread, not one a column: ten times RUN sums would take most of the registers.
    return (
        s0 + over_runs(above * right, RUN),
        s1 + over_runs(above * centre, RUN),
        s2 + over_runs(above * left, RUN),
        s3 + over_runs(here * right, RUN),
        s4 + over_runs(here * centre, RUN),
        s5 + over_runs(here * left, RUN),
        s6 + over_runs(below * right, RUN),
        s7 + over_runs(below * centre, RUN),
        s8 + over_runs(below * left, RUN),
    )


@triton.jit
def interleave_last(a, b):
    """Interleaves two tiles (CH, n, k) along their last axis: (CH, n, 2 k)."""
    return tl.reshape(tl.join(a, b), [a.shape[0], a.shape[1], 2 * a.shape[2]])


@triton.jit
def totals(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9):
    """Sums ten tiles (CH, n) over their columns: (CH, 16), the last six zeros."""
    # As one tile: threads wait for each other once, not once per sum. Each interleaving adds one bit to the index, the
    # lowest last: the innermost pairs are 0 and 8, 4 and 12, ..., and the sums end up in order.
    zero = tl.zeros_like(s0)
    even = interleave_last(
        interleave_last(tl.join(s0, s8), tl.join(s4, zero)),
        interleave_last(tl.join(s2, zero), tl.join(s6, zero)),
    )
    odd = interleave_last(
        interleave_last(tl.join(s1, s9), tl.join(s5, zero)),
        interleave_last(tl.join(s3, zero), tl.join(s7, zero)),
    )
    return tl.sum(interleave_last(even, odd), 1)


@single_config
@triton.jit
def depthwise_backward_kernel(
    dz,
    x,
    weight,
    shift,
    dx,
    partials,
    CHANNELS,
    H,
    W,
    dz_image,
    dz_channel,
    dz_row,
    dz_column,
    x_image,
    x_channel,
    x_row,
    x_column,
    BX: tl.constexpr,
    CH: tl.constexpr,
    RY: tl.constexpr,
    UNROLL: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Writes the gradient of ``x`` into a contiguous ``dx``, sums into ``partials``, if given.

    ``partials`` is (parts, 10 CHANNELS): the gradients of each channel's 9 weights, then those of the biases.

    A tile is (CH, BX). The program writes RY rows of dX from ``top`` on; of the weights' gradients it sums the products
    of X in these rows with the rows of dz around them, so that every element of X counts in one program.
    """
    image, channel, top, first = block(CHANNELS, H, W, CH, BX, RY)
    known = channel < CHANNELS
    column = first + tl.arange(0, BX)[None, :]
    dz += image * dz_image + channel * dz_channel
    x += image * x_image + channel * x_channel
    end = tl.minimum(top + RY, H)
    zero = tl.full([CH, BX], 0.0, TYPE)
    SHIFTED: tl.constexpr = shift is not None
    constant = load_bias(shift, channel, known, TYPE)
    if dx is not None:
        dx += (image * CHANNELS + channel) * H * W + column
        w0, w1, w2, w3, w4, w5, w6, w7, w8 = load_taps(weight, channel, known, TYPE)
        upper, lower = zero, zero
    if partials is not None:
        above, here = zero, zero
        none = tl.full([CH, BX // RUN], 0.0, TYPE)
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = none, none, none, none, none, none, none, none, none
        s9 = none
    # Rows top - 1 and top of dz, which complete no row of dX: what the loop below does, without the store.
    for i in tl.static_range(2):
        row = top - 1 + i
        left, centre, right = load_row(
            dz, row, first, H, W, None, dz_row, dz_column, known, constant, False, BX, RUN, TYPE
        )
        if dx is not None:
            # dX is a convolution of dz by the weights in reverse order, without a bias.
            whole, upper, lower = slide(upper, lower, 0.0, left, centre, right, w8, w7, w6, w5, w4, w3, w2, w1, w0)
        if partials is not None:
            at = x + (row + 1).to(tl.int64) * x_row
            inside = rows_inside(known, row + 1, 0, end)
            below = load_shifted(at, column, W, None, x_column, inside, constant, SHIFTED).to(TYPE)
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = correlate(
                above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8, RUN
            )
            above, here = here, below
            if i == 1:
                # dbias: row top - 1 belongs to the program above.
                s9 += over_runs(centre, RUN)
    for start in range(0, RY, UNROLL):
        for i in tl.static_range(UNROLL):
            row = top + start + i
            left, centre, right = load_row(
                dz, row + 1, first, H, W, None, dz_row, dz_column, known, constant, False, BX, RUN, TYPE
            )
            if dx is not None:
                whole, upper, lower = slide(upper, lower, 0.0, left, centre, right, w8, w7, w6, w5, w4, w3, w2, w1, w0)
                tl.store(
                    dx + row.to(tl.int64) * W,
                    whole.to(dx.dtype.element_ty),
                    mask=rows_inside(known, row, 0, H) & (column < W),
                )
            if partials is not None:
                at = x + (row + 2).to(tl.int64) * x_row
                inside = rows_inside(known, row + 2, 0, end)
                below = load_shifted(at, column, W, None, x_column, inside, constant, SHIFTED).to(TYPE)
                s0, s1, s2, s3, s4, s5, s6, s7, s8 = correlate(
                    above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8, RUN
                )
                above, here = here, below
                s9 += tl.where(row + 1 < end, over_runs(centre, RUN), 0.0)
    if partials is not None:
        columns = (W + BX - 1) // BX
        rows = (H + RY - 1) // RY
        part = (image * rows + top // RY) * columns + first // BX
        sums = tl.arange(0, 16)[None, :]
        # This program's row of the buffer: a part is one (image, block of rows, block of columns).
        at = partials + part * CHANNELS * SUMS
        found = totals(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9)
        tl.store(at + channel * 9 + sums, found, mask=known & (sums < 9))
        tl.store(at + CHANNELS * 9 + channel + 0 * sums, found, mask=known & (sums == 9))


def gradients(
    dz: Tensor, x: Tensor, weight: Tensor, shift: Tensor | None, dx: Tensor | None, need_parameters: bool
) -> Tensor | None:
    """Fills a contiguous ``dx``, if given; returns the gradients of weight and bias, one vector, if needed."""
    batch, channels, height, width = x.shape
    run = depthwise_forward.run_length(dz)
    group, columns = depthwise_forward.tile(width, run, LANES)
    parts = batch * divide_up(height, ROWS) * divide_up(width, columns)
    partials = None
    if need_parameters:
        partials = torch.empty((parts, channels * SUMS.value), dtype=accumulation_dtype(x.dtype), device=x.device)
    depthwise_backward_kernel[(parts * divide_up(channels, group),)](
        dz,
        x,
        weight.contiguous(),
        contiguous(shift),
        dx,
        partials,
        channels,
        height,
        width,
        *dz.stride(),
        *x.stride(),
        BX=columns,
        CH=group,
        RY=ROWS,
        UNROLL=UNROLL,
        RUN=run,
        TYPE=accumulation_type(x.dtype),
        num_warps=WARPS,
    )
    return None if partials is None else summed(partials)


def compute(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    need_x: bool,
    need_parameters: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes ``depthwise_gradients`` inside of an operator; those of weight and bias are one vector, or empty."""
    dx, of_parameters = _empty_gradients(dy, x, weight, bias, activation, need_x, need_parameters)
    if not (need_x or need_parameters):
        return dx, of_parameters
    dz = dy
    if activation != "none":
        dz = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        depthwise_forward.fill(x, weight, bias, shift, dy, dz, activation)
    sums = gradients(dz, x, weight, shift, dx if need_x else None, need_parameters)
    return dx, of_parameters if sums is None else sums


_depthwise_backward = operator("depthwise_backward")(compute)


@fake(_depthwise_backward)
def _empty_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    need_x: bool,
    need_parameters: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    sums = len(weight) * SUMS.value if need_parameters else 0
    return (
        torch.empty(x.shape if need_x else (0,), dtype=x.dtype, device=x.device),
        torch.empty((sums,), dtype=accumulation_dtype(x.dtype), device=x.device),
    )


def depthwise_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    need_x: bool,
    need_parameters: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns the gradients of ``x``, weight and bias of ``exda_primitives.ops.triton.depthwise.depthwise``.

    Args:
        dy: gradient of its output, (B, M, H, W), or (B, M/2, H, W) with the gate; of any strides.
        x: (B, M, H, W).
        weight: (M, 1, 3, 3).
        bias: (M,) or None.
        activation: ``"none"``, ``"gelu"`` or ``"gate"``.
        need_x: whether the gradient of ``x`` is needed; if not, an empty tensor takes its place.
        need_parameters: whether those of weight and bias are needed; if not, they are None.
        shift: (M,) or None; its gradient is the sum of that of ``x`` over images and pixels.

    Returns:
        Gradients in the shapes and dtypes of ``x``, ``weight`` and ``bias``. Sums are taken in float32; dz is rounded
        to the dtype of ``x``.
    """
    dx, sums = _depthwise_backward(dy, x, weight, bias, activation, need_x, need_parameters, shift)
    if not need_parameters:
        return dx, None, None
    return dx, *parameter_gradients(sums, [weight, bias])


differentiable_no_more(_depthwise_backward)
