"""The kernels of ``norm_pointwise``: the fused product, the gradient of its input, and that of its weight.

Tiles: n and dn are (BC, BN), all channels by a block of pixels; W (BO, BC) and y (BO, BN) are taken BO outputs at a
time. A product takes factors in the maps' own dtype, as tensor cores do, and sums in TYPE.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import autotuned
from .norm_kernels import (
    inverse_deviation,
    load_channels,
    load_tile,
    moments,
    normalised,
    store_gradients,
    store_tile,
    whole_norm,
)
from .tiles import dot


@autotuned(
    triton.Config({"BN": 128, "BO": 64}, num_warps=4, num_stages=3),
    triton.Config({"BN": 64, "BO": 64}, num_warps=4, num_stages=3),
    triton.Config({"BN": 128, "BO": 128}, num_warps=8, num_stages=2),
    triton.Config({"BN": 256, "BO": 64}, num_warps=8, num_stages=2),
    # The only one that fits 99 KiB of shared memory (compute capability 8.6, 8.9) in float32.
    triton.Config({"BN": 64, "BO": 32}, num_warps=4, num_stages=2),
)
@triton.jit
def norm_pointwise_kernel(
    x,
    norm_weight,
    norm_bias,
    weight,
    bias,
    out,
    CHANNELS: tl.constexpr,
    PIXELS,
    OUTPUTS: tl.constexpr,
    x_image,
    x_channel,
    x_pixel,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
    BO: tl.constexpr,
):
    """``y = W n + b`` at BN pixels of one image, all outputs."""
    # Program = image * tiles + tile.
    tiles = (PIXELS + BN - 1) // BN
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    channel = tl.arange(0, BC)
    x += image * x_image
    out += image * OUTPUTS * PIXELS
    tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
    n = whole_norm(tile, norm_weight, norm_bias, channel, pixel, CHANNELS, PIXELS, EPS, SUBTRACT_MEAN, TYPE)
    # Rows beyond the channels may hold -mean / std: made 0, as the columns of W are there.
    n = tl.where((channel < CHANNELS)[:, None], n, 0.0).to(x.dtype.element_ty)
    for first in range(0, OUTPUTS, BO):
        output = first + tl.arange(0, BO)
        w = load_tile(weight, output, channel, OUTPUTS, CHANNELS, CHANNELS, 1, x.dtype.element_ty)
        y = dot(w, n, tl.zeros([BO, BN], TYPE), PRECISION) + load_channels(bias, output, OUTPUTS, 0.0, TYPE)
        store_tile(out, y, output, pixel, OUTPUTS, PIXELS)


@autotuned(
    triton.Config({"BO": 64}, num_warps=4, num_stages=3),
    triton.Config({"BO": 32}, num_warps=4, num_stages=4),
    triton.Config({"BO": 64}, num_warps=8, num_stages=3),
    triton.Config({"BO": 128}, num_warps=8, num_stages=2),
)
@triton.jit
def input_gradient_kernel(
    x,
    dy,
    norm_weight,
    weight,
    dx,
    partial,
    CHANNELS: tl.constexpr,
    PIXELS,
    OUTPUTS: tl.constexpr,
    x_image,
    x_channel,
    x_pixel,
    dy_image,
    dy_output,
    dy_pixel,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
    BO: tl.constexpr,
):
    """Dx at BN pixels of one image and, unless ``partial`` is None, their part of the norm's parameters' gradients."""
    tiles = (PIXELS + BN - 1) // BN
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    channel = tl.arange(0, BC)
    x += image * x_image
    dy += image * dy_image
    dx += image * CHANNELS * PIXELS
    # dn = W^T dy, summed over blocks of outputs. W^T is W with its strides swapped.
    dn = tl.zeros([BC, BN], TYPE)
    for first in range(0, OUTPUTS, BO):
        output = first + tl.arange(0, BO)
        w = load_tile(weight, channel, output, CHANNELS, OUTPUTS, 1, CHANNELS, dy.dtype.element_ty)
        upstream = load_tile(dy, output, pixel, OUTPUTS, PIXELS, dy_output, dy_pixel, dy.dtype.element_ty)
        dn = dot(w, upstream, dn, PRECISION)
    tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
    store_gradients(tile, dn, norm_weight, dx, partial, channel, pixel, CHANNELS, PIXELS, EPS, SUBTRACT_MEAN, TYPE)


@autotuned(
    triton.Config({"BN": 64}, num_warps=8, num_stages=2),
    triton.Config({"BN": 32}, num_warps=8, num_stages=3),
    triton.Config({"BN": 32}, num_warps=4, num_stages=3),
)
@triton.jit
def weight_gradient_kernel(
    x,
    dy,
    norm_weight,
    norm_bias,
    partial,
    CHANNELS: tl.constexpr,
    PIXELS,
    OUTPUTS: tl.constexpr,
    x_image,
    x_channel,
    x_pixel,
    dy_image,
    dy_output,
    dy_pixel,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
    BO: tl.constexpr,
):
    """This program's part of dW and db, BO outputs over SPLIT pixels.

    ``partial`` is (images * splits, O * C + O): dW, (O, C), then db, (O,).
    """
    # Program = (image * splits + split) * blocks + block of outputs.
    blocks = (OUTPUTS + BO - 1) // BO
    splits = (PIXELS + SPLIT - 1) // SPLIT
    output = tl.program_id(0) % blocks * BO + tl.arange(0, BO)
    part = (tl.program_id(0) // blocks).to(tl.int64)
    start = (part % splits).to(tl.int32) * SPLIT
    channel = tl.arange(0, BC)
    x += part // splits * x_image
    dy += part // splits * dy_image
    gain = load_channels(norm_weight, channel, CHANNELS, 1.0, TYPE)
    shift = load_channels(norm_bias, channel, CHANNELS, 0.0, TYPE)
    dw = tl.zeros([BO, BC], TYPE)
    db = tl.zeros([BO], TYPE)
    for first in range(0, SPLIT, BN):
        pixel = start + first + tl.arange(0, BN)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        upstream = load_tile(dy, output, pixel, OUTPUTS, PIXELS, dy_output, dy_pixel, dy.dtype.element_ty)
        mean, squares = moments(tile, channel < CHANNELS, CHANNELS)
        inverse = inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS)
        n = normalised(tile, mean, inverse, SUBTRACT_MEAN) * gain + shift
        # dW += dy n^T, db += sum dy; pixels and outputs outside have dy = 0.
        dw = dot(upstream, tl.trans(n.to(dy.dtype.element_ty)), dw, PRECISION)
        db += tl.sum(upstream.to(TYPE), 1)
    at = partial + part * OUTPUTS * (CHANNELS + 1)
    known = output < OUTPUTS
    row = output[:, None] * CHANNELS
    tl.store(at + row + channel[None, :], dw, mask=known[:, None] & (channel < CHANNELS)[None, :])
    tl.store(at + OUTPUTS * CHANNELS + output, db, mask=known)
