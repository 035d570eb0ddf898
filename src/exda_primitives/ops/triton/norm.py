"""Layer normalisation over the channels of each pixel, with the mean subtracted or left in.

``y = (x - mean) / sqrt(var + eps) * weight + bias`` or, with the mean left in, ``y = x / sqrt(var + eps) * weight +
bias``; the variance is that about the mean, biased, in both. The second form is Restormer's for denoising (after Mohan
et al., "Robust and interpretable blind image denoising via bias-free convolutional neural networks", ICLR 2020).

Up to :data:`WHOLE` channels a program holds all channels of its pixels: forward, one pass over x and one over y;
backward, one over each of x, dy and dx. Beyond, it takes them a block at a time, and reads again what it read before:
forward, x twice; backward, x three times and dy twice. Sums are float32, those of the variance about each block's mean.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import accumulation_dtype, widen
from .launch import device_obstacle, divide_up, dtype_obstacle, on_device_of, require
from .tiles import wide

WHOLE = 512
_BLOCK_C = 128
# Elements of a tile that a lane holds: backward keeps several tiles in registers at once, forward one.
_FORWARD, _BACKWARD = 64, 32


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
    """:func:`moments` of all channels, block by block (Chan, Golub and LeVeque, 1979)."""
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
            y = z * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
            y += load_channels(bias, channel, CHANNELS, 0.0, TYPE)
            store_tile(out, y, channel, pixel, CHANNELS, PIXELS)
    else:
        channel = tl.arange(0, BC)
        tile = load_tile(x, channel, pixel, CHANNELS, PIXELS, x_channel, x_pixel, TYPE)
        mean, squares = moments(tile, channel < CHANNELS, CHANNELS)
        z = normalised(tile, mean, 1 / tl.sqrt(squares / CHANNELS + EPS), SUBTRACT_MEAN)
        y = z * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
        y += load_channels(bias, channel, CHANNELS, 0.0, TYPE)
        store_tile(out, y, channel, pixel, CHANNELS, PIXELS)


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
        mean, squares = moments(tile, channel < CHANNELS, CHANNELS)
        inverse = 1 / tl.sqrt(squares / CHANNELS + EPS)
        z = normalised(tile, mean, inverse, SUBTRACT_MEAN)
        dz = upstream * load_channels(weight, channel, CHANNELS, 1.0, TYPE)
        along = tl.sum(dz * z, 0) / CHANNELS
        level = tl.sum(dz, 0) / CHANNELS
        gradient = input_gradient(tile, dz, mean, inverse, along, level, SUBTRACT_MEAN)
        store_tile(dx, gradient, channel, pixel, CHANNELS, PIXELS)
        if partial is not None:
            store_parameter_sums(partial, upstream, z, channel, CHANNELS)


def obstacle(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Why :func:`layer_norm` cannot be computed; None if it can.

    Args:
        x: (B, C, H, W).
        weight: (C,) or None.
        bias: (C,) or None.
    """
    if x.dim() != 4 or 0 in x.shape:
        return f"x is {tuple(x.shape)}; the kernel takes (B, C, H, W), none of them 0"
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is None:
            continue
        if parameter.shape != (x.shape[1],):
            return f"the {name} is {tuple(parameter.shape)}; with {x.shape[1]} channels it has to be ({x.shape[1]},)"
        if parameter.device != x.device:
            return f"x is on {x.device}, the {name} on {parameter.device}"
        if found := dtype_obstacle(parameter):
            return found
    return dtype_obstacle(x) or device_obstacle(x)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    """Layer normalisation over the channels of each pixel; differentiable once.

    Args:
        x: (B, C, H, W), float32, float16 or bfloat16. Read where it lies if rows of pixels follow one another at one
            distance (contiguous, channels-last, channels cut out of a larger map), else copied.
        weight: (C,) or None for ones; its dtype may differ from that of ``x``.
        bias: (C,) or None for zeros; likewise.
        subtract_mean: whether the mean is subtracted; if not, x is only divided by its standard deviation.
        eps: added to the variance.

    Returns:
        (B, C, H, W), contiguous, in the dtype of ``x``. Statistics are float32, gradients deterministic.

    Raises:
        InputError: if the kernel does not apply; :func:`obstacle` says why beforehand.
    """
    require("exda::layer_norm", obstacle(x, weight, bias))
    return _layer_norm(x, weight, bias, subtract_mean, eps)


def layer_norm_reference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float
) -> Tensor:
    """:func:`layer_norm` in PyTorch's own operations: any device, any dtype, differentiable."""
    wide_x = widen(x)
    deviation = wide_x - wide_x.mean(1, keepdim=True)
    inverse = torch.rsqrt(deviation.square().mean(1, keepdim=True) + eps)
    out = (deviation if subtract_mean else wide_x) * inverse
    if weight is not None:
        out = out * weight[:, None, None]
    if bias is not None:
        out = out + bias[:, None, None]
    return out.to(x.dtype)


def _blocking(channels: int, lane: int) -> dict[str, Any]:
    """How a program's tile is cut, and its warps, for ``lane`` elements a lane."""
    whole = channels <= WHOLE
    block_c = 1 << (channels - 1).bit_length() if whole else _BLOCK_C
    block_n = min(max(4 * 32 * lane // block_c, 32), 256)
    warps = max(block_c * block_n // (32 * lane), 4)
    return {"STREAMED": not whole, "BC": block_c, "BN": block_n, "num_warps": warps}


@torch.library.custom_op("exda::layer_norm", mutates_args=())
def _layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pixels, blocking = x.flatten(2), _blocking(x.shape[1], _FORWARD)
    with on_device_of(x):
        layer_norm_kernel[(len(x) * divide_up(pixels.shape[2], blocking["BN"]),)](
            pixels,
            None if weight is None else weight.contiguous(),
            None if bias is None else bias.contiguous(),
            out,
            *pixels.shape[1:],
            *pixels.stride(),
            EPS=eps,
            SUBTRACT_MEAN=subtract_mean,
            TYPE=wide(x.dtype),
            **blocking,
        )
    return out


@_layer_norm.register_fake
def _layer_norm_fake(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("exda::layer_norm_backward", mutates_args=())
def _layer_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, parameters: bool, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of weight and bias together, (2, C) if asked for, else (0, C)."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pixels, upstream, blocking = x.flatten(2), dy.flatten(2), _blocking(x.shape[1], _BACKWARD)
    programs = len(x) * divide_up(pixels.shape[2], blocking["BN"])
    rows = (programs, 2 if parameters else 0, x.shape[1])
    partial = torch.empty(rows, dtype=accumulation_dtype(x.dtype), device=x.device)
    with on_device_of(x):
        layer_norm_backward_kernel[(programs,)](
            pixels,
            upstream,
            None if weight is None else weight.contiguous(),
            dx,
            partial if parameters else None,
            *pixels.shape[1:],
            *pixels.stride(),
            *upstream.stride(),
            EPS=eps,
            SUBTRACT_MEAN=subtract_mean,
            TYPE=wide(x.dtype),
            **blocking,
        )
    return dx, partial.sum(0)


@_layer_norm_backward.register_fake
def _layer_norm_backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor | None, parameters: bool, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor]:
    rows = (2 if parameters else 0, x.shape[1])
    return (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(rows, dtype=accumulation_dtype(x.dtype), device=x.device),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.subtract_mean, ctx.eps = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    parameters = any(ctx.needs_input_grad[1:3])
    dx, sums = _layer_norm_backward(dy, x, weight, parameters, ctx.subtract_mean, ctx.eps)
    return (
        dx,
        sums[0].to(weight.dtype) if ctx.needs_input_grad[1] else None,
        sums[1].to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None,
        None,
        None,
    )


_layer_norm.register_autograd(_differentiate, setup_context=_save)
