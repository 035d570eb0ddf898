"""The kernels of ``norm``, and the device functions that those of ``norm_pointwise`` share with them.

Tiles are (C, N), channels by pixels. With std = sqrt(var + eps): ``z = (x - mean) / std``, or ``x / std`` with the
mean left in, and ``y = z * weight + bias``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import single_config


@triton.jit
def load_tile(x, row, column, ROWS, COLUMNS, row_stride, column_stride, TYPE: tl.constexpr):
    """Loads rows (R,) and columns (S,) of a matrix as an (R, S) tile of dtype TYPE, with 0 outside the matrix."""
    # int64: offsets into maps of 2^31 elements and more.
    at = x + row.to(tl.int64)[:, None] * row_stride + column.to(tl.int64)[None, :] * column_stride
    return tl.load(at, mask=(row < ROWS)[:, None] & (column < COLUMNS)[None, :], other=0.0).to(TYPE)


@triton.jit
def store_tile(out, value, row, column, ROWS, COLUMNS):
    """Writes an (R, S) tile to rows (R,) and columns (S,) of a contiguous matrix, leaving out what is outside it."""
    at = out + row.to(tl.int64)[:, None] * COLUMNS + column[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=(row < ROWS)[:, None] & (column < COLUMNS)[None, :])


@triton.jit
def load_channels(parameter, channel, CHANNELS, default: tl.constexpr, TYPE: tl.constexpr):
    """Loads one number per channel, (C, 1); ``default`` for all channels if the parameter is None."""
    if parameter is None:
        return tl.full([channel.shape[0], 1], default, TYPE)
    else:
        return tl.load(parameter + channel, mask=channel < CHANNELS, other=0.0).to(TYPE)[:, None]


@triton.jit
def moments(x, known, count):
    """Mean and sum of squared deviations, (N,) each, over the ``count`` rows of a (C, N) tile that are ``known`` (C,).

    Unknown rows have to be 0.
    """
    mean = tl.sum(x, 0) / count
    # An unknown row adds nothing to the sum above, but would deviate by the mean.
    deviation = tl.where(known[:, None], x - mean[None, :], 0.0)
    return mean, tl.sum(deviation * deviation, 0)


@triton.jit
def streamed_moments(
    x,
    pixel,
    CHANNELS: tl.constexpr,
    PIXELS,
    x_channel,
    x_pixel,
    TYPE: tl.constexpr,
    BC: tl.constexpr,
):
    """``moments`` of all channels, merged block by block (Chan, Golub and LeVeque, 1979)."""
    mean = tl.zeros([pixel.shape[0]], TYPE)
    squares = tl.zeros([pixel.shape[0]], TYPE)
    for first in range(0, CHANNELS, BC):
        channel = first + tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        count = tl.minimum(CHANNELS - first, BC)
        block_mean, block_squares = moments(tile, channel < CHANNELS, count)
        # n = first channels so far, m = count in this block, d = block_mean - mean:
        # mean += d m / (n + m), squares += block_squares + d^2 n m / (n + m).
        shift = block_mean - mean
        step = shift * count / (first + count)
        mean += step
        squares += block_squares + shift * step * first
    return mean, squares


@triton.jit
def inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS: tl.constexpr):
    """1 / std (N,) of pixels, given their sums of squared deviations."""
    variance = squares / CHANNELS + EPS
    if EPS == 0:
        # Pixels outside the map have variance 0: their infinity times a gradient of 0 would be NaN in the sums.
        variance = tl.where(pixel < PIXELS, variance, 1.0)
    return 1 / tl.sqrt(variance)


@triton.jit
def normalised(x, mean, inverse, SUBTRACT_MEAN: tl.constexpr):
    """Z of a (C, N) tile; its mean, and ``inverse`` = 1 / std, are (N,)."""
    if SUBTRACT_MEAN:
        x = x - mean[None, :]
    return x * inverse[None, :]


@triton.jit
def input_gradient(x, dz, mean, inverse, mean_dz_z, mean_dz, SUBTRACT_MEAN: tl.constexpr):
    """Gradient of x, given that of z, ``dz``, and the means of dz z and of dz over the channels, (N,) each.

    ``dx = (dz - (x - mean) / std * mean_dz_z - mean_dz) / std``; with the mean left in, without ``mean_dz``.
    """
    # The standard deviation is about the mean in both forms: its derivative is along (x - mean) even if z is not.
    gradient = dz - normalised(x, mean, inverse, True) * mean_dz_z[None, :]
    if SUBTRACT_MEAN:
        gradient = gradient - mean_dz[None, :]
    return gradient * inverse[None, :]


@triton.jit
def store_parameter_sums(partial, dy, z, channel, CHANNELS):
    """Writes this program's part of the gradients of weight and bias to its row of ``partial`` (programs, 2, C).

    ``dweight = sum dy z`` and ``dbias = sum dy`` over its pixels; outside the map dy was loaded as 0.
    """
    at = partial + tl.program_id(0).to(tl.int64) * 2 * CHANNELS + channel
    tl.store(at, tl.sum(dy * z, 1), mask=channel < CHANNELS)
    tl.store(at + CHANNELS, tl.sum(dy, 1), mask=channel < CHANNELS)


@triton.jit
def store_gradients(
    x,
    upstream,
    weight,
    dx,
    partial,
    channel,
    pixel,
    CHANNELS: tl.constexpr,
    PIXELS,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Writes dx and, unless ``partial`` is None, the parameters' sums, given all channels of some pixels.

    ``x`` and ``upstream``, the gradient of y, are (C, N) tiles.
    """
    mean, squares = moments(x, channel < CHANNELS, CHANNELS)
    inverse = inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS)
    z = normalised(x, mean, inverse, SUBTRACT_MEAN)
    # dz = dy * weight
    dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
    mean_dz_z = tl.sum(dz * z, 0) / CHANNELS
    mean_dz = tl.sum(dz, 0) / CHANNELS
    gradient = input_gradient(x, dz, mean, inverse, mean_dz_z, mean_dz, SUBTRACT_MEAN)
    store_tile(dx, gradient, channel, pixel, CHANNELS, PIXELS)
    if partial is not None:
        store_parameter_sums(partial, upstream, z, channel, CHANNELS)


@triton.jit
def affine(z, weight, bias, channel, CHANNELS, TYPE: tl.constexpr):
    """``y = z * weight + bias`` of a (C, N) tile."""
    return z * load_channels(weight, channel, CHANNELS, 1.0, TYPE) + load_channels(bias, channel, CHANNELS, 0.0, TYPE)


@triton.jit
def whole_norm(
    x,
    weight,
    bias,
    channel,
    pixel,
    CHANNELS,
    PIXELS,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Y of a tile (C, N) that holds all channels of its pixels."""
    mean, squares = moments(x, channel < CHANNELS, CHANNELS)
    inverse = inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS)
    z = normalised(x, mean, inverse, SUBTRACT_MEAN)
    return affine(z, weight, bias, channel, CHANNELS, TYPE)


@single_config
@triton.jit
def layer_norm_kernel(
    x,
    weight,
    bias,
    out,
    CHANNELS: tl.constexpr,
    PIXELS,
    x_image,
    x_channel,
    x_pixel,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    STREAMED: tl.constexpr,
    TYPE: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
):
    """Y at BN pixels of one image, by tiles of BC channels; all channels are one tile unless STREAMED."""
    # Program = image * tiles + tile.
    tiles = (PIXELS + BN - 1) // BN
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    x += image * x_image
    out += image * CHANNELS * PIXELS
    if STREAMED:
        # First read of x: the moments of all channels. Second: y, block by block.
        mean, squares = streamed_moments(x, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE, BC)
        inverse = inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS)
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            z = normalised(tile, mean, inverse, SUBTRACT_MEAN)
            y = affine(z, weight, bias, channel, CHANNELS, TYPE)
            store_tile(out, y, channel, pixel, CHANNELS, PIXELS)
    else:
        channel = tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        y = whole_norm(tile, weight, bias, channel, pixel, CHANNELS, PIXELS, EPS, SUBTRACT_MEAN, TYPE)
        store_tile(out, y, channel, pixel, CHANNELS, PIXELS)


@single_config
@triton.jit
def layer_norm_backward_kernel(
    x,
    dy,
    weight,
    dx,
    partial,
    CHANNELS: tl.constexpr,
    PIXELS,
    x_image,
    x_channel,
    x_pixel,
    dy_image,
    dy_channel,
    dy_pixel,
    EPS: tl.constexpr,
    SUBTRACT_MEAN: tl.constexpr,
    STREAMED: tl.constexpr,
    TYPE: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
):
    """Dx at BN pixels of one image and, unless ``partial`` is None, their part of the parameters' gradients."""
    tiles = (PIXELS + BN - 1) // BN
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    x += image * x_image
    dy += image * dy_image
    dx += image * CHANNELS * PIXELS
    if STREAMED:
        mean, squares = streamed_moments(x, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE, BC)
        inverse = inverse_deviation(squares, pixel, CHANNELS, PIXELS, EPS)
        # Second read of x, first of dy: the means of dz z and dz over all channels, which every element of dx takes.
        mean_dz_z = tl.zeros([BN], TYPE)
        mean_dz = tl.zeros([BN], TYPE)
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
            dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
            mean_dz_z += tl.sum(dz * normalised(tile, mean, inverse, SUBTRACT_MEAN), 0) / CHANNELS
            mean_dz += tl.sum(dz, 0) / CHANNELS
        # Third read of x, second of dy: dx and the parameters' sums, block by block.
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
            dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
            gradient = input_gradient(tile, dz, mean, inverse, mean_dz_z, mean_dz, SUBTRACT_MEAN)
            store_tile(dx, gradient, channel, pixel, CHANNELS, PIXELS)
            if partial is not None:
                z = normalised(tile, mean, inverse, SUBTRACT_MEAN)
                store_parameter_sums(partial, upstream, z, channel, CHANNELS)
    else:
        channel = tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
        store_gradients(tile, upstream, weight, dx, partial, channel, pixel, CHANNELS, PIXELS, EPS, SUBTRACT_MEAN, TYPE)
