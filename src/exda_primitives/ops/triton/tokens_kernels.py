"""The kernels of ``tokens``: pooling and softmax, interpolation, and their gradients.

A cell is a pooled pixel, a row is one of the B * M maps. Interpolation weights are fractions of integers, exact to the
last bit at any size.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import single_config


@triton.jit
def neighbouring_cells(place, LENGTH, CELLS, TYPE: tl.constexpr):
    """Returns the two cells whose centres enclose a pixel's, and the weight of the second; along one axis."""
    # align_corners=False: (place + 1/2) CELLS / LENGTH - 1/2, at least 0, in units of 1 / (2 LENGTH).
    numerator = tl.maximum((2 * place + 1) * CELLS - LENGTH, 0)
    low = numerator // (2 * LENGTH)
    weight = (numerator - low * 2 * LENGTH).to(TYPE) / (2 * LENGTH)
    return low, tl.minimum(low + 1, CELLS - 1), weight


@triton.jit
def cell_weight(place, cell, LENGTH, CELLS, TYPE: tl.constexpr):
    """Returns the weight with which a pixel takes a cell's value, along one axis."""
    # Both terms count in the last cell, where low and high are the same.
    low, high, weight = neighbouring_cells(place, LENGTH, CELLS, TYPE)
    return tl.where(low == cell, 1 - weight, 0.0) + tl.where(high == cell, weight, 0.0)


@triton.jit
def first_pixel_of(cell, LENGTH, CELLS):
    """Returns the first pixel that takes a share of a cell; with stride S, all that do are among the 2 S from it on."""
    # The first whose place in ``neighbouring_cells`` is beyond cell - 1: (2 place + 1) CELLS > (2 cell - 1) LENGTH.
    return tl.maximum((2 * cell - 1) * LENGTH + CELLS, 0) // (2 * CELLS)


@triton.jit
def finite_or_zero(peak):
    """Returns ``peak``, or 0 for the -inf of no logits at all: exp(-inf - 0) is 0, exp(-inf - -inf) would be NaN."""
    return tl.where(peak == float("-inf"), 0.0, peak)


@triton.jit
def softmax_terms(chunks, row, CHUNKS, CELLS, KNOWN: tl.constexpr):
    """Returns the largest logit of a map, peak, and the factor of ``exp(logit - peak)`` that gives a mean of 1.

    ``chunks``, (rows, 2, CHUNKS), holds each chunk's peak and sum; KNOWN is a power of two, at least CHUNKS.
    """
    i = tl.arange(0, KNOWN)
    at = chunks + row * 2 * CHUNKS + i
    peaks = tl.load(at, mask=i < CHUNKS, other=float("-inf"))
    masses = tl.load(at + CHUNKS, mask=i < CHUNKS, other=0.0)
    peak = tl.max(peaks, 0)
    # CELLS softmax = CELLS exp(logit - peak) / sum; each chunk's sum is about its own peak.
    return peak, CELLS / tl.sum(masses * tl.exp(peaks - finite_or_zero(peak)), 0)


@single_config
@triton.jit
def pool_kernel(
    phi,
    logits,
    chunks,
    MAPS,
    H,
    W,
    phi_image,
    phi_map,
    phi_row,
    phi_column,
    STRIDE: tl.constexpr,
    STEPS: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes one chunk of a map's pooled logits, STEPS blocks, their peak and their ``sum(exp(logit - peak))``.

    Programs are (rows * CHUNKS,).
    """
    h = (H + STRIDE - 1) // STRIDE
    w = (W + STRIDE - 1) // STRIDE
    CHUNKS = (h * w + STEPS * BLOCK - 1) // (STEPS * BLOCK)
    row = (tl.program_id(0) // CHUNKS).to(tl.int64)
    chunk = tl.program_id(0) % CHUNKS
    phi += row // MAPS * phi_image + row % MAPS * phi_map
    # A peak and a sum for each lane, over the blocks; the lanes are reduced once, at the end.
    peak = tl.full([BLOCK], float("-inf"), TYPE)
    mass = tl.zeros([BLOCK], TYPE)
    for step in range(STEPS):
        cell = (chunk * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        known = cell < h * w
        # Lanes beyond the map stand for its last cell, so that they do not divide by 0; they store nothing.
        place = tl.minimum(cell, h * w - 1)
        top = place // w * STRIDE
        left = place % w * STRIDE
        total = tl.zeros([BLOCK], TYPE)
        for i in range(STRIDE):
            line = phi + (top + i).to(tl.int64) * phi_row
            for j in range(STRIDE):
                inside = known & (top + i < H) & (left + j < W)
                total += tl.load(line + (left + j).to(tl.int64) * phi_column, mask=inside, other=0.0).to(TYPE)
        # A cell at the edge averages the pixels that are there (count_include_pad=False).
        logit = total / (tl.minimum(H - top, STRIDE) * tl.minimum(W - left, STRIDE))
        tl.store(logits + row * h * w + cell, logit, mask=known)
        logit = tl.where(known, logit, float("-inf"))
        # Online softmax: the sum so far is rescaled to the new peak.
        higher = tl.maximum(peak, logit)
        mass = mass * tl.exp(peak - finite_or_zero(higher)) + tl.exp(logit - finite_or_zero(higher))
        peak = higher
    highest = tl.max(peak, 0)
    at = chunks + row * 2 * CHUNKS + chunk
    tl.store(at, highest)
    tl.store(at + CHUNKS, tl.sum(mass * tl.exp(peak - finite_or_zero(highest)), 0))


@single_config
@triton.jit
def upsample_kernel(
    logits,
    chunks,
    out,
    H,
    W,
    h,
    w,
    CHUNKS,
    KNOWN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes BLOCK pixels of one map of G; programs are (rows * pixel blocks,)."""
    tiles = (H * W + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    known = pixel < H * W
    peak, factor = softmax_terms(chunks, row, CHUNKS, h * w, KNOWN)
    top, bottom, down = neighbouring_cells(pixel // W, H, h, TYPE)
    left, right, along = neighbouring_cells(pixel % W, W, w, TYPE)
    logits += row * h * w
    # The softmax of the four cells around the pixel, computed here: the compact map is never stored.
    a = tl.exp(tl.load(logits + top * w + left, mask=known, other=0.0) - peak)
    b = tl.exp(tl.load(logits + top * w + right, mask=known, other=0.0) - peak)
    c = tl.exp(tl.load(logits + bottom * w + left, mask=known, other=0.0) - peak)
    d = tl.exp(tl.load(logits + bottom * w + right, mask=known, other=0.0) - peak)
    value = (1 - down) * ((1 - along) * a + along * b) + down * ((1 - along) * c + along * d)
    tl.store(out + row * H * W + pixel, (value * factor).to(out.dtype.element_ty), mask=known)


@single_config
@triton.jit
def upsample_backward_kernel(
    dg,
    logits,
    chunks,
    du,
    products,
    MAPS,
    H,
    W,
    dg_image,
    dg_map,
    dg_row,
    dg_column,
    STRIDE: tl.constexpr,
    STEPS: tl.constexpr,
    KNOWN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the gradients du of one chunk of a compact map u of mean 1, and ``sum(u du)`` over it.

    Programs are (rows * CHUNKS,). ``du`` is gathered, the transpose of ``upsample_kernel``: no atomic additions.
    """
    h = (H + STRIDE - 1) // STRIDE
    w = (W + STRIDE - 1) // STRIDE
    CHUNKS = (h * w + STEPS * BLOCK - 1) // (STEPS * BLOCK)
    row = (tl.program_id(0) // CHUNKS).to(tl.int64)
    chunk = tl.program_id(0) % CHUNKS
    peak, factor = softmax_terms(chunks, row, CHUNKS, h * w, KNOWN)
    dg += row // MAPS * dg_image + row % MAPS * dg_map
    product = tl.zeros([BLOCK], TYPE)
    for step in range(STEPS):
        cell = (chunk * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        known = cell < h * w
        top = first_pixel_of(cell // w, H, h)
        left = first_pixel_of(cell % w, W, w)
        # du[cell] = sum over pixels of the pixel's share of the cell times dG[pixel]: a window of 2 S x 2 S pixels.
        total = tl.zeros([BLOCK], TYPE)
        for i in range(2 * STRIDE):
            vertical = cell_weight(top + i, cell // w, H, h, TYPE)
            line = dg + (top + i).to(tl.int64) * dg_row
            for j in range(2 * STRIDE):
                inside = known & (top + i < H) & (left + j < W)
                upstream = tl.load(line + (left + j).to(tl.int64) * dg_column, mask=inside, other=0.0).to(TYPE)
                total += vertical * cell_weight(left + j, cell % w, W, w, TYPE) * upstream
        at = row * h * w + cell
        u = tl.exp(tl.load(logits + at, mask=known, other=0.0) - peak) * factor
        product += tl.where(known, u * total, 0.0)
        tl.store(du + at, total, mask=known)
    tl.store(products + row * CHUNKS + chunk, tl.sum(product, 0))


@single_config
@triton.jit
def pool_backward_kernel(
    du,
    logits,
    chunks,
    products,
    dphi,
    H,
    W,
    CHUNKS,
    STRIDE: tl.constexpr,
    KNOWN: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the gradients of BLOCK pixels of one map of phi; programs are (rows * pixel blocks,)."""
    h = (H + STRIDE - 1) // STRIDE
    w = (W + STRIDE - 1) // STRIDE
    tiles = (H * W + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    known = pixel < H * W
    peak, factor = softmax_terms(chunks, row, CHUNKS, h * w, KNOWN)
    i = tl.arange(0, KNOWN)
    # Through u = P softmax(logits), P cells: dlogits = u (du - mean(u du)).
    mean = tl.sum(tl.load(products + row * CHUNKS + i, mask=i < CHUNKS, other=0.0), 0) / (h * w)
    place = tl.minimum(pixel, H * W - 1)
    y = place // W // STRIDE
    x = place % W // STRIDE
    at = row * h * w + y * w + x
    u = tl.exp(tl.load(logits + at, mask=known, other=0.0) - peak) * factor
    gradient = u * (tl.load(du + at, mask=known, other=0.0) - mean)
    # Through the average: each of a cell's pixels takes the cell's gradient over their number.
    pooled = tl.minimum(H - y * STRIDE, STRIDE) * tl.minimum(W - x * STRIDE, STRIDE)
    tl.store(dphi + row * H * W + pixel, (gradient / pooled).to(dphi.dtype.element_ty), mask=known)
