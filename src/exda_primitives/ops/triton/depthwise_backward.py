"""The gradients of a 3x3 depthwise convolution, given that of its activation's output.

``dX[m, y, x] = sum_ij weight[m, i, j] dz[m, y - i + 1, x - j + 1]`` and
``dweight[m, i, j] = sum_yx (X[m, y, x] + shift[m]) dz[m, y - i + 1, x - j + 1]`` take the same nine neighbours of dz:
one pass reads dz and X and writes dX. Every program writes its part of the sums into a buffer of its own; they are
added up in a fixed order, to the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import accumulation_dtype
from . import depthwise_forward
from .kernel import launched
from .launch import contiguous, divide_up, summed
from .operator import differentiable_no_more, fake, operator
from .stencil import block, load_bias, load_row, load_shifted, load_taps, rows_inside, slide
from .tiles import wide

# Not tuned: the size of the buffer for the partial sums depends on them. 166 registers a thread in half precision.
LANES, ROWS, UNROLL, WARPS = 128, 16, 2, 4
SUMS = 10  # of each channel: nine weights and the bias


@triton.jit
def correlate(above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8):
    """Adds what one row of dz and the three rows of X around it give to the gradient of the nine weights."""
    return (
        s0 + above * right,
        s1 + above * centre,
        s2 + above * left,
        s3 + here * right,
        s4 + here * centre,
        s5 + here * left,
        s6 + below * right,
        s7 + below * centre,
        s8 + below * left,
    )


@launched
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
    """The gradient of ``x`` into a contiguous ``dx``, sums into ``partials`` (parts, CHANNELS, 10), where given."""
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
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        s9 = zero
    # The first two rows complete no row of dX: their part of the loop below.
    for i in tl.static_range(2):
        row = top - 1 + i
        left, centre, right = load_row(dz, row, first, H, W, dz_row, dz_column, known, constant, False, BX, RUN, TYPE)
        if dx is not None:
            whole, upper, lower = slide(upper, lower, 0.0, left, centre, right, w8, w7, w6, w5, w4, w3, w2, w1, w0)
        if partials is not None:
            at = x + (row + 1).to(tl.int64) * x_row
            inside = rows_inside(known, row + 1, 0, end)
            below = load_shifted(at, column, W, x_column, inside, constant, SHIFTED).to(TYPE)
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = correlate(
                above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8
            )
            above, here = here, below
            if i == 1:
                s9 += centre
    for start in range(0, RY, UNROLL):
        for i in tl.static_range(UNROLL):
            row = top + start + i
            left, centre, right = load_row(
                dz, row + 1, first, H, W, dz_row, dz_column, known, constant, False, BX, RUN, TYPE
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
                below = load_shifted(at, column, W, x_column, inside, constant, SHIFTED).to(TYPE)
                s0, s1, s2, s3, s4, s5, s6, s7, s8 = correlate(
                    above, here, below, left, centre, right, s0, s1, s2, s3, s4, s5, s6, s7, s8
                )
                above, here = here, below
                s9 += tl.where(row + 1 < end, centre, 0.0)
    if partials is not None:
        columns = (W + BX - 1) // BX
        rows = (H + RY - 1) // RY
        part = (image * rows + top // RY) * columns + first // BX
        at = partials + (part * CHANNELS + channel) * 10
        tl.store(at, tl.sum(s0, 1)[:, None], mask=known)
        tl.store(at + 1, tl.sum(s1, 1)[:, None], mask=known)
        tl.store(at + 2, tl.sum(s2, 1)[:, None], mask=known)
        tl.store(at + 3, tl.sum(s3, 1)[:, None], mask=known)
        tl.store(at + 4, tl.sum(s4, 1)[:, None], mask=known)
        tl.store(at + 5, tl.sum(s5, 1)[:, None], mask=known)
        tl.store(at + 6, tl.sum(s6, 1)[:, None], mask=known)
        tl.store(at + 7, tl.sum(s7, 1)[:, None], mask=known)
        tl.store(at + 8, tl.sum(s8, 1)[:, None], mask=known)
        tl.store(at + 9, tl.sum(s9, 1)[:, None], mask=known)


def gradients(
    dz: Tensor, x: Tensor, weight: Tensor, shift: Tensor | None, dx: Tensor | None, need_parameters: bool
) -> Tensor | None:
    """Fills a contiguous ``dx``, if given; returns the gradients of weight and bias (M, 10), if needed."""
    batch, channels, height, width = x.shape
    run = depthwise_forward.run_length(dz)
    group, columns = depthwise_forward.tile(width, run, LANES)
    parts = batch * divide_up(height, ROWS) * divide_up(width, columns)
    partials = None
    if need_parameters:
        partials = torch.empty((parts, channels, SUMS), dtype=accumulation_dtype(x.dtype), device=x.device)
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
        TYPE=wide(x.dtype),
        num_warps=WARPS,
    )
    return None if partials is None else summed(partials)


@operator("depthwise_backward")
def depthwise_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    need_x: bool,
    need_parameters: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``x``, weight and bias of :func:`exda_primitives.ops.triton.depthwise.depthwise`.

    Args:
        dy: gradient of its output, (B, M, H, W), with the gate (B, M/2, H, W), of any strides.
        x: (B, M, H, W).
        weight: (M, 1, 3, 3).
        bias: (M,) or None.
        activation: ``"none"``, ``"gelu"`` or ``"gate"``.
        need_x: without it, an empty tensor comes in place of the gradient of ``x``.
        need_parameters: likewise for those of weight and bias.
        shift: (M,) or None; its gradient is the sum of that of ``x`` over images and pixels.

    Returns:
        In the shapes and dtypes of ``x``, ``weight`` and ``bias``. Sums are taken in float32; dz is rounded to the
        dtype of ``x``.
    """
    dx, dweight, dbias = _empty_gradients(dy, x, weight, bias, activation, need_x, need_parameters)
    if not (need_x or need_parameters):
        return dx, dweight, dbias
    dz = dy
    if activation != "none":
        dz = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        depthwise_forward.fill(x, weight, bias, shift, dy, dz, activation)
    sums = gradients(dz, x, weight, shift, dx if need_x else None, need_parameters)
    if sums is not None:
        dweight.copy_(sums[:, :9].view(dweight.shape))
        dbias.copy_(sums[:, 9])
    return dx, dweight, dbias


@fake(depthwise_backward)
def _empty_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    need_x: bool,
    need_parameters: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = (0,)
    parameters = weight if bias is None else bias
    return (
        torch.empty(x.shape if need_x else nothing, dtype=x.dtype, device=x.device),
        torch.empty(weight.shape if need_parameters else nothing, dtype=weight.dtype, device=x.device),
        torch.empty(weight.shape[:1] if need_parameters else nothing, dtype=parameters.dtype, device=x.device),
    )


differentiable_no_more(depthwise_backward)
