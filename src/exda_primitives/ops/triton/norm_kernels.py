"""The kernels of ``norm``, and what those of ``norm_pointwise`` share with them."""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import launched


@triton.jit
def load_tile(x, row, column, ROWS, COLUMNS, row_stride, column_stride, TYPE: tl.constexpr):
    """Elements of a matrix at rows (R,) and columns (S,) as an (R, S) tile of dtype TYPE; 0 outside the matrix."""
    at = x + row.to(tl.int64)[:, None] * row_stride + column.to(tl.int64)[None, :] * column_stride
    return tl.load(at, mask=(row < ROWS)[:, None] & (column < COLUMNS)[None, :], other=0.0).to(TYPE)


@triton.jit
def store_tile(out, value, row, column, ROWS, COLUMNS):
    """Writes an (R, S) tile to rows (R,) and columns (S,) of a contiguous matrix, but for what lies outside it."""
    at = out + row.to(tl.int64)[:, None] * COLUMNS + column[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=(row < ROWS)[:, None] & (column < COLUMNS)[None, :])


@triton.jit
def load_channels(parameter, channel, CHANNELS, default: tl.constexpr, TYPE: tl.constexpr):
    """One number a channel, (C, 1); ``default`` for all where there is no such parameter."""
    if parameter is None:
        return tl.full([channel.shape[0], 1], default, TYPE)
    else:
        return tl.load(parameter + channel, mask=channel < CHANNELS, other=0.0).to(TYPE)[:, None]


@triton.jit
def moments(x, known, count):
    """Mean (N,) over the ``count`` rows of a (C, N) tile that are ``known`` (C,), and their squared deviations' sum."""
    mean = tl.sum(x, 0) / count
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
    """``moments`` of all channels, block by block (Chan, Golub and LeVeque, 1979)."""
    mean = tl.zeros([pixel.shape[0]], TYPE)
    squares = tl.zeros([pixel.shape[0]], TYPE)
    for first in range(0, CHANNELS, BC):
        channel = first + tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        count = tl.minimum(CHANNELS - first, BC)
        block_mean, block_squares = moments(tile, channel < CHANNELS, count)
        shift = block_mean - mean
        step = shift * count / (first + count)
        mean += step
        squares += block_squares + shift * step * first
    return mean, squares


@triton.jit
def normalised(x, mean, inverse, SUBTRACT_MEAN: tl.constexpr):
    """A (C, N) tile over its standard deviation; mean and one over the standard deviation are (N,)."""
    if SUBTRACT_MEAN:
        x = x - mean[None, :]
    return x * inverse[None, :]


@triton.jit
def input_gradient(x, dz, mean, inverse, along, level, SUBTRACT_MEAN: tl.constexpr):
    """Gradient of x, where that of ``z = normalised(x)`` is ``dz``; ``along`` is mean(dz z), ``level`` mean(dz)."""
    gradient = dz - normalised(x, mean, inverse, True) * along[None, :]
    if SUBTRACT_MEAN:
        gradient = gradient - level[None, :]
    return gradient * inverse[None, :]


@triton.jit
def store_parameter_sums(partial, dy, z, channel, CHANNELS):
    """Writes this program's part of the gradients of weight and bias to its row of ``partial`` (programs, 2, C)."""
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
    """From all channels of some pixels, and the gradient of y there: dx and, unless ``partial`` is None, the sums."""
    mean, squares = moments(x, channel < CHANNELS, CHANNELS)
    inverse = 1 / tl.sqrt(squares / CHANNELS + EPS)
    z = normalised(x, mean, inverse, SUBTRACT_MEAN)
    dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
    along = tl.sum(dz * z, 0) / CHANNELS
    level = tl.sum(dz, 0) / CHANNELS
    gradient = input_gradient(x, dz, mean, inverse, along, level, SUBTRACT_MEAN)
    store_tile(dx, gradient, channel, pixel, CHANNELS, PIXELS)
    if partial is not None:
        store_parameter_sums(partial, upstream, z, channel, CHANNELS)


@triton.jit
def affine(z, weight, bias, channel, CHANNELS, TYPE: tl.constexpr):
    """Y, a (C, N) tile, of z."""
    return z * load_channels(weight, channel, CHANNELS, 1.0, TYPE) + load_channels(bias, channel, CHANNELS, 0.0, TYPE)


@triton.jit
def whole_norm(x, weight, bias, channel, CHANNELS, EPS: tl.constexpr, SUBTRACT_MEAN: tl.constexpr, TYPE: tl.constexpr):
    """Y of a tile (C, N) that holds all channels of its pixels."""
    mean, squares = moments(x, channel < CHANNELS, CHANNELS)
    z = normalised(x, mean, 1 / tl.sqrt(squares / CHANNELS + EPS), SUBTRACT_MEAN)
    return affine(z, weight, bias, channel, CHANNELS, TYPE)


@launched
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
    """Y at BN pixels of one image."""
    tiles = (PIXELS + BN - 1) // BN
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    x += image * x_image
    out += image * CHANNELS * PIXELS
    if STREAMED:
        mean, squares = streamed_moments(x, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE, BC)
        inverse = 1 / tl.sqrt(squares / CHANNELS + EPS)
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            z = normalised(tile, mean, inverse, SUBTRACT_MEAN)
            y = affine(z, weight, bias, channel, CHANNELS, TYPE)
            store_tile(out, y, channel, pixel, CHANNELS, PIXELS)
    else:
        channel = tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        y = whole_norm(tile, weight, bias, channel, CHANNELS, EPS, SUBTRACT_MEAN, TYPE)
        store_tile(out, y, channel, pixel, CHANNELS, PIXELS)


@launched
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
        inverse = 1 / tl.sqrt(squares / CHANNELS + EPS)
        along = tl.zeros([BN], TYPE)
        level = tl.zeros([BN], TYPE)
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
            dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
            along += tl.sum(dz * normalised(tile, mean, inverse, SUBTRACT_MEAN), 0) / CHANNELS
            level += tl.sum(dz, 0) / CHANNELS
        for first in range(0, CHANNELS, BC):
            channel = first + tl.arange(0, BC)
            tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
            upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
            dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
            gradient = input_gradient(tile, dz, mean, inverse, along, level, SUBTRACT_MEAN)
            store_tile(dx, gradient, channel, pixel, CHANNELS, PIXELS)
            if partial is not None:
                z = normalised(tile, mean, inverse, SUBTRACT_MEAN)
                store_parameter_sums(partial, upstream, z, channel, CHANNELS)
    else:
        channel = tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        upstream = load_tile(dy, channel, pixel, CHANNELS, PIXELS, dy_channel, dy_pixel, TYPE)
        store_gradients(tile, upstream, weight, dx, partial, channel, pixel, CHANNELS, PIXELS, EPS, SUBTRACT_MEAN, TYPE)
