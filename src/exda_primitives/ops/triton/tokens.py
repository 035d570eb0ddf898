"""Global spatial tokens from their logits: pooled, softmax over space, brought to mean 1, upsampled.

``G = upsample(P softmax(pool_s(phi)))``: average pooling with stride s (ceil mode, padding not counted), softmax over
the P pooled pixels, bilinear interpolation (align_corners=False): :mod:`..tokens` in two launches. The first reads phi,
writes the pooled logits and, for every chunk of them, their maximum and the sum of their exponentials about it; the
second finishes the softmax as it interpolates, and writes G. Backward is the same way back: the interpolation's
transpose gathers for every pooled pixel (G's gradient is read from memory once, from the cache about four times), with
the chunks' parts of the softmax's inner product; then every pixel takes its share of its cell's gradient.

Places between pooled pixels are fractions of integers: weights are exact to the last bit at any size.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import accumulation_dtype
from ..tokens import pool, softmax_over_space, unit_mean, upsample
from .launch import device_obstacle, divide_up, dtype_obstacle, on_device_of, require
from .tiles import wide

_BLOCK = 1024
# Every program of the second launch reads one number a chunk of its map.
_MOST_CHUNKS = 256
# 2 * side * side has to fit 32 bits.
_LONGEST_SIDE = 32767


@triton.jit
def between(place, LENGTH, CELLS, TYPE: tl.constexpr):
    """The two cells between whose centres a pixel lies, and the weight of the second."""
    # (place + 1/2) CELLS / LENGTH - 1/2, at least 0, in units of 1 / (2 LENGTH).
    numerator = tl.maximum((2 * place + 1) * CELLS - LENGTH, 0)
    low = numerator // (2 * LENGTH)
    weight = (numerator - low * 2 * LENGTH).to(TYPE) / (2 * LENGTH)
    return low, tl.minimum(low + 1, CELLS - 1), weight


@triton.jit
def share(place, cell, LENGTH, CELLS, TYPE: tl.constexpr):
    """How much of a cell's value a pixel takes."""
    low, high, weight = between(place, LENGTH, CELLS, TYPE)
    return tl.where(low == cell, 1 - weight, 0.0) + tl.where(high == cell, weight, 0.0)


@triton.jit
def first_taker(cell, LENGTH, CELLS):
    """The first pixel that takes a share of a cell; with stride S, those that do are among the 2 S from it on."""
    return tl.maximum((2 * cell - 1) * LENGTH + CELLS, 0) // (2 * CELLS)


@triton.jit
def finite(peak):
    """``peak``, or 0 for that of nothing: exp(-inf - 0) is 0, exp(-inf - -inf) is not."""
    return tl.where(peak == float("-inf"), 0.0, peak)


@triton.jit
def softmax_terms(chunks, row, CHUNKS, CELLS, KNOWN: tl.constexpr):
    """The peak of a map's logits, and the factor of ``exp(logit - peak)`` for maps of mean 1.

    ``chunks`` (rows, 2, CHUNKS) holds each chunk's peak and sum; KNOWN is a power of two, at least CHUNKS.
    """
    i = tl.arange(0, KNOWN)
    at = chunks + row * 2 * CHUNKS + i
    peaks = tl.load(at, mask=i < CHUNKS, other=float("-inf"))
    masses = tl.load(at + CHUNKS, mask=i < CHUNKS, other=0.0)
    peak = tl.max(peaks, 0)
    return peak, CELLS / tl.sum(masses * tl.exp(peaks - finite(peak)), 0)


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
    """Pooled logits of one chunk of one map, STEPS blocks of it, their peak and the sum of their exponentials."""
    h = (H + STRIDE - 1) // STRIDE
    w = (W + STRIDE - 1) // STRIDE
    CHUNKS = (h * w + STEPS * BLOCK - 1) // (STEPS * BLOCK)
    row = (tl.program_id(0) // CHUNKS).to(tl.int64)
    chunk = tl.program_id(0) % CHUNKS
    phi += row // MAPS * phi_image + row % MAPS * phi_map
    peak = tl.full([BLOCK], float("-inf"), TYPE)
    mass = tl.zeros([BLOCK], TYPE)
    for step in range(STEPS):
        cell = (chunk * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        known = cell < h * w
        # Lanes beyond the map compute its last cell, which is never stored, not 0 / 0.
        place = tl.minimum(cell, h * w - 1)
        top = place // w * STRIDE
        left = place % w * STRIDE
        total = tl.zeros([BLOCK], TYPE)
        for i in range(STRIDE):
            line = phi + (top + i).to(tl.int64) * phi_row
            for j in range(STRIDE):
                inside = known & (top + i < H) & (left + j < W)
                total += tl.load(line + (left + j).to(tl.int64) * phi_column, mask=inside, other=0.0).to(TYPE)
        logit = total / (tl.minimum(H - top, STRIDE) * tl.minimum(W - left, STRIDE))
        tl.store(logits + row * h * w + cell, logit, mask=known)
        logit = tl.where(known, logit, float("-inf"))
        higher = tl.maximum(peak, logit)
        mass = mass * tl.exp(peak - finite(higher)) + tl.exp(logit - finite(higher))
        peak = higher
    highest = tl.max(peak, 0)
    at = chunks + row * 2 * CHUNKS + chunk
    tl.store(at, highest)
    tl.store(at + CHUNKS, tl.sum(mass * tl.exp(peak - finite(highest)), 0))


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
    """BLOCK pixels of one map of G."""
    tiles = (H * W + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    known = pixel < H * W
    peak, factor = softmax_terms(chunks, row, CHUNKS, h * w, KNOWN)
    top, bottom, down = between(pixel // W, H, h, TYPE)
    left, right, along = between(pixel % W, W, w, TYPE)
    logits += row * h * w
    a = tl.exp(tl.load(logits + top * w + left, mask=known, other=0.0) - peak)
    b = tl.exp(tl.load(logits + top * w + right, mask=known, other=0.0) - peak)
    c = tl.exp(tl.load(logits + bottom * w + left, mask=known, other=0.0) - peak)
    d = tl.exp(tl.load(logits + bottom * w + right, mask=known, other=0.0) - peak)
    value = (1 - down) * ((1 - along) * a + along * b) + down * ((1 - along) * c + along * d)
    tl.store(out + row * H * W + pixel, (value * factor).to(out.dtype.element_ty), mask=known)


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
    """Gradients of one chunk of a compact map u of mean 1, and their products' sum with u."""
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
        top = first_taker(cell // w, H, h)
        left = first_taker(cell % w, W, w)
        total = tl.zeros([BLOCK], TYPE)
        for i in range(2 * STRIDE):
            vertical = share(top + i, cell // w, H, h, TYPE)
            line = dg + (top + i).to(tl.int64) * dg_row
            for j in range(2 * STRIDE):
                inside = known & (top + i < H) & (left + j < W)
                upstream = tl.load(line + (left + j).to(tl.int64) * dg_column, mask=inside, other=0.0).to(TYPE)
                total += vertical * share(left + j, cell % w, W, w, TYPE) * upstream
        at = row * h * w + cell
        u = tl.exp(tl.load(logits + at, mask=known, other=0.0) - peak) * factor
        product += tl.where(known, u * total, 0.0)
        tl.store(du + at, total, mask=known)
    tl.store(products + row * CHUNKS + chunk, tl.sum(product, 0))


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
    """Gradients of BLOCK pixels of one map of logits."""
    h = (H + STRIDE - 1) // STRIDE
    w = (W + STRIDE - 1) // STRIDE
    tiles = (H * W + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    known = pixel < H * W
    peak, factor = softmax_terms(chunks, row, CHUNKS, h * w, KNOWN)
    i = tl.arange(0, KNOWN)
    mean = tl.sum(tl.load(products + row * CHUNKS + i, mask=i < CHUNKS, other=0.0), 0) / (h * w)
    place = tl.minimum(pixel, H * W - 1)
    y = place // W // STRIDE
    x = place % W // STRIDE
    at = row * h * w + y * w + x
    u = tl.exp(tl.load(logits + at, mask=known, other=0.0) - peak) * factor
    gradient = u * (tl.load(du + at, mask=known, other=0.0) - mean)
    pooled = tl.minimum(H - y * STRIDE, STRIDE) * tl.minimum(W - x * STRIDE, STRIDE)
    tl.store(dphi + row * H * W + pixel, (gradient / pooled).to(dphi.dtype.element_ty), mask=known)


def obstacle(phi: Tensor, stride: int) -> str | None:
    """Why :func:`token_maps` cannot be computed; None if it can.

    Args:
        phi: (B, M, H, W).
        stride: of the pooling.
    """
    if phi.dim() != 4 or 0 in phi.shape:
        return f"phi is {tuple(phi.shape)}; the kernel takes (B, M, H, W), none of them 0"
    if max(phi.shape[2:]) > _LONGEST_SIDE:
        return f"phi is {tuple(phi.shape)}; the kernel takes maps of at most {_LONGEST_SIDE} pixels a side"
    if stride < 1:
        return f"the stride is {stride}; it has to be at least 1"
    return dtype_obstacle(phi) or device_obstacle(phi)


def token_maps(phi: Tensor, stride: int) -> Tensor:
    """Token maps of compact mean 1 from their logits; differentiable once.

    Args:
        phi: (B, M, H, W), float32, float16 or bfloat16, of any strides: Phi's rows of a larger product, as they lie.
        stride: of the pooling, s >= 1.

    Returns:
        G, (B, M, H, W), contiguous, non-negative, in the dtype of ``phi``. Its compact maps have mean 1; used as
        values, tokens of scale ``"sum"`` still need the factor 1 / (ceil(H/s) * ceil(W/s)): see
        :func:`..tokens.unit_mean`. Logits are pooled, and the softmax taken, in float32.

    Raises:
        InputError: if the kernel does not apply; :func:`obstacle` says why beforehand.
    """
    require("exda::token_maps", obstacle(phi, stride))
    return _token_maps(phi, stride)[0]


def token_maps_reference(phi: Tensor, stride: int) -> Tensor:
    """:func:`token_maps` in PyTorch's own operations: any device, any dtype, differentiable."""
    maps, _ = unit_mean(softmax_over_space(pool(phi, stride)), "mean")
    return upsample(maps, phi.shape[2:]).to(phi.dtype)


def _chunks(cells: int) -> tuple[int, int]:
    """Chunks that a map's pooled pixels are cut into, and blocks in each."""
    steps = divide_up(cells, _BLOCK * _MOST_CHUNKS)
    # A power of two, so that the kernels' loops have one length for many sizes.
    steps = 1 << (steps - 1).bit_length()
    return divide_up(cells, _BLOCK * steps), steps


@torch.library.custom_op("exda::token_maps", mutates_args=())
def _token_maps(phi: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """G; the pooled logits (B, M, h, w) and the softmax's (B * M, 2, chunks) peaks and sums, which backward takes."""
    out, logits, chunks = _empty_outputs(phi, stride)
    height, width = phi.shape[2:]
    rows, steps = len(chunks), _chunks(logits.shape[2] * logits.shape[3])[1]
    with on_device_of(phi):
        pool_kernel[(rows * chunks.shape[2],)](
            phi,
            logits,
            chunks,
            phi.shape[1],
            height,
            width,
            *phi.stride(),
            STRIDE=stride,
            STEPS=steps,
            TYPE=wide(phi.dtype),
            BLOCK=_BLOCK,
        )
        upsample_kernel[(rows * divide_up(height * width, _BLOCK),)](
            logits,
            chunks,
            out,
            height,
            width,
            *logits.shape[2:],
            chunks.shape[2],
            KNOWN=_MOST_CHUNKS,
            TYPE=wide(phi.dtype),
            BLOCK=_BLOCK,
        )
    return out, logits, chunks


def _empty_outputs(phi: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    size = [divide_up(side, stride) for side in phi.shape[2:]]
    count = _chunks(size[0] * size[1])[0]
    dtype, device = accumulation_dtype(phi.dtype), phi.device
    return (
        torch.empty(phi.shape, dtype=phi.dtype, device=device),
        torch.empty((*phi.shape[:2], *size), dtype=dtype, device=device),
        torch.empty((phi.shape[0] * phi.shape[1], 2, count), dtype=dtype, device=device),
    )


_token_maps.register_fake(_empty_outputs)


@torch.library.custom_op("exda::token_maps_backward", mutates_args=())
def _token_maps_backward(dg: Tensor, logits: Tensor, chunks: Tensor, stride: int) -> Tensor:
    height, width = dg.shape[2:]
    rows, steps = len(chunks), _chunks(logits.shape[2] * logits.shape[3])[1]
    dphi = torch.empty(dg.shape, dtype=dg.dtype, device=dg.device)
    du = torch.empty(logits.shape, dtype=logits.dtype, device=dg.device)
    products = torch.empty((rows, chunks.shape[2]), dtype=logits.dtype, device=dg.device)
    with on_device_of(dg):
        upsample_backward_kernel[(rows * chunks.shape[2],)](
            dg,
            logits,
            chunks,
            du,
            products,
            dg.shape[1],
            height,
            width,
            *dg.stride(),
            STRIDE=stride,
            STEPS=steps,
            KNOWN=_MOST_CHUNKS,
            TYPE=wide(dg.dtype),
            BLOCK=_BLOCK,
        )
        pool_backward_kernel[(rows * divide_up(height * width, _BLOCK),)](
            du,
            logits,
            chunks,
            products,
            dphi,
            height,
            width,
            chunks.shape[2],
            STRIDE=stride,
            KNOWN=_MOST_CHUNKS,
            TYPE=wide(dg.dtype),
            BLOCK=_BLOCK,
        )
    return dphi


@_token_maps_backward.register_fake
def _token_maps_backward_fake(dg: Tensor, logits: Tensor, chunks: Tensor, stride: int) -> Tensor:
    return torch.empty(dg.shape, dtype=dg.dtype, device=dg.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, logits, chunks = output
    ctx.stride = inputs[1]
    ctx.mark_non_differentiable(logits, chunks)
    # Nobody differentiates them: without this, zeros would be made as their gradients.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, chunks)


def _differentiate(ctx: Any, dg: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
    return None if dg is None else _token_maps_backward(dg, *ctx.saved_tensors, ctx.stride), None


_token_maps.register_autograd(_differentiate, setup_context=_save)
