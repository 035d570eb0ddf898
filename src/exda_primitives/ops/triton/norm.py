"""Layer normalisation over the channels of each pixel, with the mean subtracted or left in.

``y = (x - mean) / sqrt(var + eps) * weight + bias`` or, with the mean left in, ``y = x / sqrt(var + eps) * weight +
bias``; in both, var is the biased variance about the mean. The second form is Restormer's for denoising (after Mohan
et al., "Robust and interpretable blind image denoising via bias-free convolutional neural networks", ICLR 2020).

Up to ``WHOLE`` channels, a program holds all channels of its pixels: forward reads x once, backward reads x and dy
once. Beyond, it loops over blocks of channels and reads them again: forward reads x twice, backward x three times and
dy twice. Sums are float32; a block's squared deviations are taken about that block's mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import accumulation_dtype
from .launch import contiguous, device_unsupported_reason, divide_up, dtype_unsupported_reason, require, summed
from .norm_kernels import layer_norm_backward_kernel, layer_norm_kernel
from .operator import differentiable, differentiable_no_more, fake, operator
from .tiles import accumulation_type

# Most channels that one program holds at once, and channels of a block where there are more.
WHOLE = 512
_BLOCK_C = 128
# Elements of a tile that a thread holds: backward keeps several tiles in registers at once, forward one.
_FORWARD, _BACKWARD = 64, 32


def unsupported_reason(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Why ``layer_norm`` cannot be computed; None if it can.

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
        if found := dtype_unsupported_reason(parameter):
            return found
    return dtype_unsupported_reason(x) or device_unsupported_reason(x)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    """Layer normalisation over the channels of each pixel; differentiable once.

    Args:
        x: (B, C, H, W), float32, float16 or bfloat16. Copied only if H and W do not flatten into one dimension of
            constant stride (they do if it is contiguous, channels-last, or a slice of a larger map's channels).
        weight: (C,) or None for ones; its dtype may differ from that of ``x``.
        bias: (C,) or None for zeros; its dtype may differ from that of ``x``.
        subtract_mean: whether the mean is subtracted; if not, x is only divided by its standard deviation.
        eps: added to the variance.

    Returns:
        (B, C, H, W), contiguous, in the dtype of ``x``. Statistics are float32, gradients deterministic.

    Raises:
        InputError: if the kernel does not apply; ``unsupported_reason`` says why beforehand.
    """
    require("exda::layer_norm", unsupported_reason(x, weight, bias))
    return _layer_norm(x, weight, bias, subtract_mean, eps)


def _blocking(channels: int, lane: int) -> dict[str, Any]:
    """Returns the tile of a program, BC channels by BN pixels, and its warps, for ``lane`` elements a thread."""
    whole = channels <= WHOLE
    block_c = 1 << (channels - 1).bit_length() if whole else _BLOCK_C
    # As many pixels as 4 warps of 32 threads hold, 32 to 256; 32 pixels of many channels need more warps.
    block_n = min(max(4 * 32 * lane // block_c, 32), 256)
    warps = max(block_c * block_n // (32 * lane), 4)
    return {"STREAMED": not whole, "BC": block_c, "BN": block_n, "num_warps": warps}


def compute(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    """Computes ``layer_norm`` inside of an operator: without checks and without gradients."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pixels, blocking = x.flatten(2), _blocking(x.shape[1], _FORWARD)
    layer_norm_kernel[(len(x) * divide_up(pixels.shape[2], blocking["BN"]),)](
        pixels,
        contiguous(weight),
        contiguous(bias),
        out,
        *pixels.shape[1:],
        *pixels.stride(),
        EPS=eps,
        SUBTRACT_MEAN=subtract_mean,
        TYPE=accumulation_type(x.dtype),
        **blocking,
    )
    return out


_layer_norm = operator("layer_norm")(compute)


@fake(_layer_norm)
def _layer_norm_fake(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@operator("layer_norm_backward")
def _layer_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, parameters: bool, subtract_mean: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Returns the gradient of x and, if ``parameters``, those of weight and bias stacked, (2, C), else (0, C)."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pixels, upstream, blocking = x.flatten(2), dy.flatten(2), _blocking(x.shape[1], _BACKWARD)
    programs = len(x) * divide_up(pixels.shape[2], blocking["BN"])
    # One row a program, added up afterwards in a fixed order: without atomics, the bits are the same every time.
    rows = (programs, 2 if parameters else 0, x.shape[1])
    partial = torch.empty(rows, dtype=accumulation_dtype(x.dtype), device=x.device)
    layer_norm_backward_kernel[(programs,)](
        pixels,
        upstream,
        contiguous(weight),
        dx,
        partial if parameters else None,
        *pixels.shape[1:],
        *pixels.stride(),
        *upstream.stride(),
        EPS=eps,
        SUBTRACT_MEAN=subtract_mean,
        TYPE=accumulation_type(x.dtype),
        **blocking,
    )
    return dx, summed(partial)


@fake(_layer_norm_backward)
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


differentiable(_layer_norm, _differentiate, _save)
differentiable_no_more(_layer_norm_backward)
