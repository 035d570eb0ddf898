"""``W_out (GELU(z1) * z2) + b + residual``, ``z1, z2 = DW(X + shift)``: a gated feed-forward from its hidden map X on.

One pass: the gate's output, half as large as the hidden map, is neither written nor read. Only without gradients, in
half precision, and up to 128 output channels, whose sums one program holds in its registers. A program writes two rows
and reads four, so each input row is read by two programs: once from memory, then from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .depthwise_forward import run_length
from .gelu import gelu
from .kernel import autotuned
from .launch import contiguous, divide_up
from .stencil import halves, interleaved, load_bias, load_row, load_taps, rows_inside, slide
from .tiles import accumulation_type, dot, dot_precision, tile_side

# Output channels that one program sums.
MOST_OUTPUTS = 128


@triton.jit
def _two_rows(
    x,
    weight,
    bias,
    shift,
    channel,
    known,
    top,
    first,
    H,
    W,
    VALID,
    x_channel,
    x_row,
    SHIFTED: tl.constexpr,
    BX: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Z of rows ``top`` and ``top + 1``, (KB, BX) each, of the channels (KB, 1), from four input rows."""
    rows = x + channel * x_channel
    constant = load_bias(bias, channel, known, TYPE)
    moved = load_bias(shift, channel, known, TYPE)
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = load_taps(weight, channel, known, TYPE)
    left, centre, right = load_row(rows, top - 1, first, H, W, VALID, x_row, 1, known, moved, SHIFTED, BX, RUN, TYPE)
    _, upper, lower = slide(constant, constant, constant, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8)
    left, centre, right = load_row(rows, top, first, H, W, VALID, x_row, 1, known, moved, SHIFTED, BX, RUN, TYPE)
    _, upper, lower = slide(upper, lower, constant, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8)
    left, centre, right = load_row(rows, top + 1, first, H, W, VALID, x_row, 1, known, moved, SHIFTED, BX, RUN, TYPE)
    one, upper, lower = slide(upper, lower, constant, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8)
    left, centre, right = load_row(rows, top + 2, first, H, W, VALID, x_row, 1, known, moved, SHIFTED, BX, RUN, TYPE)
    two, upper, lower = slide(upper, lower, constant, left, centre, right, w0, w1, w2, w3, w4, w5, w6, w7, w8)
    return one, two


@triton.jit
def _store_row(
    out, y, residual, row, column, o, H, W, residual_channel, residual_row, ROWS: tl.constexpr, TYPE: tl.constexpr
):
    """Adds the residual to one row (BO, BX) of the output and writes it."""
    inside = rows_inside((o < ROWS)[:, None], row, 0, H) & (column < W)[None, :]
    row = row.to(tl.int64)
    if residual is not None:
        at = residual + o.to(tl.int64)[:, None] * residual_channel + row * residual_row + column[None, :]
        y += tl.load(at, mask=inside, other=0.0).to(TYPE)
    at = out + o.to(tl.int64)[:, None] * H * W + row * W + column[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=inside)


@autotuned(
    triton.Config({"BX": 64, "KB": 16}, num_warps=4, num_stages=2),
    triton.Config({"BX": 128, "KB": 16}, num_warps=8, num_stages=2),
    triton.Config({"BX": 64, "KB": 32}, num_warps=8, num_stages=2),
)
@triton.jit
def gated_product_kernel(
    x,
    weight,
    bias,
    shift,
    matrix,
    constant,
    residual,
    out,
    HIDDEN,
    H,
    W,
    VALID,
    x_image,
    x_channel,
    x_row,
    residual_image,
    residual_channel,
    residual_row,
    ROWS: tl.constexpr,
    BO: tl.constexpr,
    RUN: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BX: tl.constexpr,
    KB: tl.constexpr,
):
    """Writes all outputs at two rows of BX pixels, summed over KB hidden channels at a time.

    Programs are numbered by columns first: those that share input rows run at the same time.
    """
    SHIFTED: tl.constexpr = shift is not None
    columns = (W + BX - 1) // BX
    pairs = (H + 1) // 2
    image = (tl.program_id(0) // columns // pairs).to(tl.int64)
    top = tl.program_id(0) // columns % pairs * 2
    first = tl.program_id(0) % columns * BX
    x += image * x_image
    o = tl.arange(0, BO)
    # (BO, 2 BX): each pixel of the upper row and the one below it are neighbours, so that one product does both rows.
    acc = tl.zeros([BO, 2 * BX], TYPE)
    for start in range(0, HIDDEN, KB):
        hidden = start + tl.arange(0, KB)
        channel = hidden.to(tl.int64)[:, None]
        known = channel < HIDDEN
        # a, b: z1 of both rows; c, d: z2.
        a, b = _two_rows(
            x, weight, bias, shift, channel, known, top, first, H, W, VALID, x_channel, x_row, SHIFTED, BX, RUN, TYPE
        )
        partner = channel + HIDDEN
        c, d = _two_rows(
            x, weight, bias, shift, partner, known, top, first, H, W, VALID, x_channel, x_row, SHIFTED, BX, RUN, TYPE
        )
        # The gate (KB, 2 BX), rounded as its own pass would store it; acc += W_out[:, hidden] @ gate.
        tile = interleaved(gelu(a, True) * c, gelu(b, True) * d).to(x.dtype.element_ty)
        at = matrix + o[:, None] * HIDDEN + hidden[None, :]
        w = tl.load(at, mask=(o < ROWS)[:, None] & (hidden < HIDDEN)[None, :], other=0.0).to(x.dtype.element_ty)
        acc = dot(w, tile, acc, PRECISION)
    if constant is not None:
        acc += tl.load(constant + o, mask=o < ROWS, other=0.0).to(TYPE)[:, None]
    upper, lower = halves(acc)
    column = first + tl.arange(0, BX)
    out += image * ROWS * H * W
    if residual is not None:
        residual += image * residual_image
    _store_row(out, upper, residual, top, column, o, H, W, residual_channel, residual_row, ROWS, TYPE)
    _store_row(out, lower, residual, top + 1, column, o, H, W, residual_channel, residual_row, ROWS, TYPE)


def applies(x: Tensor, outputs: int) -> bool:
    """Whether this kernel computes hidden maps like ``x`` (B, 2M, H, W) with this many output channels."""
    return x.dtype in (torch.float16, torch.bfloat16) and outputs <= MOST_OUTPUTS


def compute(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shift: Tensor | None,
    matrix: Tensor,
    constant: Tensor | None,
    residual: Tensor | None,
    valid: int | None,
) -> Tensor:
    """Computes ``W_out (GELU(z1) * z2) + b + residual`` where it ``applies``: without checks and without gradients.

    Args:
        x: hidden map X, (B, 2M, H, W), contiguous, in half precision.
        weight: of the depthwise convolution, (2M, 1, 3, 3).
        bias: of the depthwise convolution, (2M,) or None.
        shift: added to ``x`` before the padding, (2M,) or None.
        matrix: W_out, (O, M).
        constant: b, (O,) or None.
        residual: (B, O, H, W) with a pixel stride of 1, or None.
        valid: width of the maps if their rows are longer than they are wide (``pitch``), else None.

    Returns:
        (B, O, H, W), contiguous, in the dtype of ``x``.
    """
    (batch, channels, height, width), outputs = x.shape, len(matrix)
    out = torch.empty((batch, outputs, height, width), dtype=x.dtype, device=x.device)

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (batch * divide_up(height, 2) * divide_up(width, meta["BX"]),)

    gated_product_kernel[grid](
        x,
        weight.contiguous(),
        contiguous(bias),
        contiguous(shift),
        matrix.contiguous(),
        contiguous(constant),
        residual,
        out,
        channels // 2,
        height,
        width,
        valid,
        *x.stride()[:3],
        *((0, 0, 0) if residual is None else residual.stride()[:3]),
        ROWS=outputs,
        BO=tile_side(outputs),
        RUN=run_length(x),
        TYPE=accumulation_type(x.dtype),
        PRECISION=dot_precision(x),
    )
    return out
