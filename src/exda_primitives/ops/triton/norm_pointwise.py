"""Layer normalisation over the channels and the 1x1 convolution that follows it, in one pass.

``y = W n + b``, ``n = layer_norm(x)``: see ``norm``. A program normalises all channels of its pixels, keeps them,
and multiplies them by W a block of output channels at a time: x is read once, y is written once, n is never stored.

Backward computes n again. One kernel gives ``dx`` and the gradients of the norm's parameters: it reads x and dy once,
and does not store ``dn = W^T dy`` either. Another gives ``dW = dy n^T`` and ``db``: it reads dy once, and x once for
every 128 outputs; its programs sum over splits of the pixels, which PyTorch then adds in a fixed order.

With more than 128 channels the tiles of n and W do not fit into shared memory together, and exact float32 products
have no tensor cores to feed: then the normalisation is a kernel of its own (``fuses`` decides).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast
from ..terms import NormTerms
from . import norm
from .launch import contiguous, divide_up, dtype_unsupported_reason, require, summed
from .norm import layer_norm
from .norm import unsupported_reason as norm_unsupported_reason
from .norm_pointwise_kernels import input_gradient_kernel, norm_pointwise_kernel, weight_gradient_kernel
from .operator import differentiable, differentiable_no_more, fake, operator
from .packed import parameter_gradients
from .tiles import accumulation_type, dot_precision, pixels_per_split, tile_side

# Most channels whose normalisation is part of the product.
FUSED_CHANNELS = 128
# Pixels of a program of the input's gradient. Not tuned: it sets the rows of the buffer for the norm's parameters.
_GRADIENT_BN = 64


def fuses(x: Tensor) -> bool:
    """Whether ``norm_pointwise`` of ``x`` (B, C, H, W) is one kernel; else it is a normalisation and a product."""
    on_tensor_cores = x.dtype in (torch.float16, torch.bfloat16) or (
        x.dtype is torch.float32 and dot_precision(x) == "tf32"
    )
    return x.shape[1] <= FUSED_CHANNELS and on_tensor_cores


def unsupported_reason(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor, bias: Tensor | None
) -> str | None:
    """Why ``norm_pointwise`` cannot be computed; None if it can.

    Args:
        x: (B, C, H, W).
        norm_weight: (C,) or None.
        norm_bias: (C,) or None.
        weight: (O, C).
        bias: (O,) or None.
    """
    if found := norm_unsupported_reason(x, norm_weight, norm_bias):
        return found
    if weight.dim() != 2 or weight.shape[1] != x.shape[1] or not len(weight):
        return f"the weight is {tuple(weight.shape)}; with {x.shape[1]} channels it has to be (O, {x.shape[1]})"
    if bias is not None and bias.shape != (len(weight),):
        return f"the bias is {tuple(bias.shape)}; with {len(weight)} outputs it has to be ({len(weight)},)"
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is None:
            continue
        if parameter.device != x.device:
            return f"x is on {x.device}, the {name} on {parameter.device}"
        if found := dtype_unsupported_reason(parameter):
            return found
    return None


def norm_pointwise(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """A 1x1 convolution of the layer normalisation over the channels of each pixel; differentiable once.

    Args:
        x: (B, C, H, W), float32, float16 or bfloat16; strides as for ``norm.layer_norm``.
        norm_weight: (C,) or None for ones. The dtypes of all parameters may differ from that of ``x``.
        norm_bias: (C,) or None for zeros.
        subtract_mean: whether the normalisation subtracts the mean.
        eps: added to the variance.
        weight: W, (O, C).
        bias: b, (O,) or None.

    Returns:
        (B, O, H, W), contiguous, in the dtype of ``x``. Sums are float32 (products of float32 may be TF32 where
        ``torch.backends.cuda.matmul.allow_tf32`` is on), gradients deterministic.

    Raises:
        InputError: if the kernels do not apply; ``unsupported_reason`` says why beforehand.
    """
    require("exda::norm_pointwise", unsupported_reason(x, norm_weight, norm_bias, weight, bias))
    if fuses(x):
        return _norm_pointwise(x, norm_weight, norm_bias, subtract_mean, eps, weight, bias)
    return pointwise(layer_norm(x, norm_weight, norm_bias, subtract_mean, eps), weight, bias)


def compute(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Computes ``norm_pointwise`` inside of an operator, by one kernel (``compute_fused``) or by two."""
    if fuses(x):
        return compute_fused(x, norm_weight, norm_bias, subtract_mean, eps, weight, bias)
    return pointwise(norm.compute(x, norm_weight, norm_bias, subtract_mean, eps), weight, bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution by PyTorch's matrix product, (B, C, H, W) -> (B, O, H, W), in the dtype of ``x``."""
    # Expanded to one matrix an image: `torch.matmul` of a single one copies x to fold the images into one matrix.
    matrices = weight.to(x.dtype).expand(x.shape[0], -1, -1)
    with without_autocast(x):
        if bias is None:
            out = torch.bmm(matrices, x.flatten(2))
        else:
            out = torch.baddbmm(bias.to(x.dtype)[:, None], matrices, x.flatten(2))
    return out.unflatten(2, x.shape[2:])


def compute_fused(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Computes ``norm_pointwise`` as one kernel, where ``fuses(x)``, inside of an operator."""
    pixels = x.flatten(2)
    out = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, device=x.device)

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (len(x) * divide_up(pixels.shape[2], meta["BN"]),)

    norm_pointwise_kernel[grid](
        pixels,
        contiguous(norm_weight),
        contiguous(norm_bias),
        weight.contiguous(),
        contiguous(bias),
        out,
        *pixels.shape[1:],
        len(weight),
        *pixels.stride(),
        EPS=eps,
        SUBTRACT_MEAN=subtract_mean,
        TYPE=accumulation_type(x.dtype),
        PRECISION=dot_precision(x),
        # All channels in one tile, at most 128.
        BC=tile_side(x.shape[1]),
    )
    return out


_norm_pointwise = operator("norm_pointwise")(compute_fused)


@fake(_norm_pointwise)
def _norm_pointwise_fake(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return torch.empty((x.shape[0], weight.shape[0], *x.shape[2:]), dtype=x.dtype, device=x.device)


@operator("norm_pointwise_input_gradient")
def _input_gradient(
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    parameters: bool,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """Returns the gradient of x and, if ``parameters``, the norm's weight's and bias's, (2, C), else (0, C)."""
    pixels, upstream = x.flatten(2), dy.flatten(2)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    programs = len(x) * divide_up(pixels.shape[2], _GRADIENT_BN)
    rows = (programs, 2 if parameters else 0, x.shape[1])
    partial = torch.empty(rows, dtype=accumulation_dtype(x.dtype), device=x.device)
    input_gradient_kernel[(programs,)](
        pixels,
        upstream,
        contiguous(norm_weight),
        weight.contiguous(),
        dx,
        partial if parameters else None,
        *pixels.shape[1:],
        len(weight),
        *pixels.stride(),
        *upstream.stride(),
        EPS=eps,
        SUBTRACT_MEAN=subtract_mean,
        TYPE=accumulation_type(x.dtype),
        PRECISION=dot_precision(x),
        BC=tile_side(x.shape[1]),
        BN=_GRADIENT_BN,
    )
    return dx, summed(partial)


@fake(_input_gradient)
def _input_gradient_fake(
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    parameters: bool,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
) -> tuple[Tensor, Tensor]:
    rows = (2 if parameters else 0, x.shape[1])
    return (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(rows, dtype=accumulation_dtype(x.dtype), device=x.device),
    )


@operator("norm_pointwise_weight_gradient")
def _weight_gradient(
    dy: Tensor, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, subtract_mean: bool, eps: float
) -> Tensor:
    """Returns the gradients of the convolution's weight, (O, C), and bias, (O,), as one vector."""
    pixels, upstream = x.flatten(2), dy.flatten(2)
    channels, outputs = x.shape[1], dy.shape[1]
    block = tile_side(outputs)
    blocks = divide_up(outputs, block)
    # The split is a constant of the kernel: as a power of two, one compiled kernel serves many sizes.
    split = 1 << (pixels_per_split(pixels.shape[2], len(x) * blocks, x.device) - 1).bit_length()
    parts = len(x) * divide_up(pixels.shape[2], split)
    partial = torch.empty((parts, outputs * (channels + 1)), dtype=accumulation_dtype(x.dtype), device=x.device)
    weight_gradient_kernel[(parts * blocks,)](
        pixels,
        upstream,
        contiguous(norm_weight),
        contiguous(norm_bias),
        partial,
        channels,
        pixels.shape[2],
        outputs,
        *pixels.stride(),
        *upstream.stride(),
        EPS=eps,
        SUBTRACT_MEAN=subtract_mean,
        TYPE=accumulation_type(x.dtype),
        PRECISION=dot_precision(x),
        SPLIT=split,
        BC=tile_side(channels),
        BO=block,
    )
    return summed(partial)


@fake(_weight_gradient)
def _weight_gradient_fake(
    dy: Tensor, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, subtract_mean: bool, eps: float
) -> Tensor:
    return torch.empty((dy.shape[1] * (x.shape[1] + 1),), dtype=accumulation_dtype(x.dtype), device=x.device)


def norm_weight_gradients(
    dy: Tensor, x: Tensor, norm: NormTerms, weight: Tensor, bias: Tensor | None
) -> list[Tensor | None]:
    """Returns the gradients of weight and bias of ``norm_pointwise``, in their shapes and dtypes, given that of y."""
    return parameter_gradients(_weight_gradient(dy, x, *norm), [weight, bias])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, norm_weight, norm_bias, ctx.subtract_mean, ctx.eps, weight, bias = inputs
    ctx.save_for_backward(x, norm_weight, norm_bias, weight, bias)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, norm_weight, norm_bias, weight, bias = ctx.saved_tensors
    needed = ctx.needs_input_grad
    gradients: list[Tensor | None] = [None] * 7
    if any(needed[:3]):
        parameters = any(needed[1:3])
        gradients[0], sums = _input_gradient(dy, x, norm_weight, parameters, ctx.subtract_mean, ctx.eps, weight)
        gradients[1] = sums[0].to(norm_weight.dtype) if needed[1] else None
        gradients[2] = sums[1].to(norm_bias.dtype) if needed[2] else None
    if any(needed[5:]):
        norm = NormTerms(norm_weight, norm_bias, ctx.subtract_mean, ctx.eps)
        gradients[5:7] = norm_weight_gradients(dy, x, norm, weight, bias)
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


differentiable(_norm_pointwise, _differentiate, _save)
differentiable_no_more(_input_gradient)
differentiable_no_more(_weight_gradient)
