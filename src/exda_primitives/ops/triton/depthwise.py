"""3x3 depthwise convolution and its activation: none, GELU, or Restormer's gate ``GELU(z1) * z2`` (GDFN, eq. 3).

``z[m, y, x] = bias[m] + sum_ij weight[m, i, j] X[m, y + i - 1, x + j - 1]``, where X is zero outside the map. Inside,
``shift[m]`` may be added to the map: the bias of the 1x1 convolution before, which PyTorch's product would take two
more passes to add.

Forward is one launch, one pass over X and the output. Backward first computes ``dz`` from X and dy (without an
activation it is dy), then the gradients of X, weight and bias from dz and X in one pass. It keeps only the arguments.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..precision import widen
from . import depthwise_forward
from .depthwise_backward import depthwise_gradients
from .launch import device_unsupported_reason, dtype_unsupported_reason, require
from .operator import differentiable, fake, operator

Activation = Literal["none", "gelu", "gate"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def convolution_unsupported_reason(convolution: nn.Conv2d) -> str | None:
    """Why the kernels do not compute this convolution; None if they do.

    Args:
        convolution: has to be depthwise, 3x3, with zero padding 1, stride 1 and dilation 1.
    """
    expected = {
        "kernel_size": (3, 3),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": convolution.in_channels,
        "out_channels": convolution.in_channels,
        "padding_mode": "zeros",
    }
    for name, wanted in expected.items():
        found = getattr(convolution, name)
        if found != wanted:
            return f"the convolution has {name}={found!r}; the kernels take {wanted!r}"
    return None


def unsupported_reason(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none", shift: Tensor | None = None
) -> str | None:
    """Why ``depthwise`` cannot be computed; None if it can.

    Args:
        x: (B, M, H, W).
        weight: (M, 1, 3, 3).
        bias: (M,) or None.
        activation: ``"none"``, ``"gelu"`` or ``"gate"``.
        shift: (M,) or None.
    """
    return _shape_unsupported_reason(x, weight, bias, activation, shift) or _kind_unsupported_reason(
        x, weight, bias, shift
    )


def _shape_unsupported_reason(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, shift: Tensor | None
) -> str | None:
    if activation not in ACTIVATIONS:
        return f"unknown activation {activation!r}; known are {', '.join(map(repr, ACTIVATIONS))}"
    if x.dim() != 4 or 0 in x.shape:
        return f"x is {tuple(x.shape)}; the kernel takes (B, M, H, W), none of them 0"
    channels = x.shape[1]
    if weight.shape != (channels, 1, 3, 3):
        return f"the weight is {tuple(weight.shape)}; with {channels} channels the kernel takes {(channels, 1, 3, 3)}"
    for name, parameter in (("bias", bias), ("shift", shift)):
        if parameter is not None and parameter.shape != (channels,):
            return f"the {name} is {tuple(parameter.shape)}; with {channels} channels the kernel takes {(channels,)}"
    if activation == "gate" and channels % 2:
        return f"the gate halves the channels; {channels} is odd"
    return None


def _kind_unsupported_reason(x: Tensor, *given: Tensor | None) -> str | None:
    """Why the devices or dtypes of the map and these parameters rule the kernel out; None if they do not."""
    parameters = [tensor for tensor in given if tensor is not None]
    for tensor in parameters:
        if tensor.device != x.device:
            return f"x is on {x.device}, a parameter on {tensor.device}"
    for tensor in (x, *parameters):
        if found := dtype_unsupported_reason(tensor):
            return found
    return device_unsupported_reason(x)


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    shift: Tensor | None = None,
) -> Tensor:
    """3x3 depthwise convolution, zero padding 1, and its activation, in one pass; differentiable once.

    Args:
        x: (B, M, H, W), float32, float16 or bfloat16, of any strides; a pixel stride of 1 is the fast one.
        weight: (M, 1, 3, 3); its dtype may differ from that of ``x``.
        bias: (M,) or None.
        activation: ``"none"``: z; ``"gelu"``: GELU(z), not its tanh form; ``"gate"``: GELU(z[:, :M/2]) * z[:, M/2:].
        shift: (M,), added to ``x`` before the padding, or None.

    Returns:
        (B, M, H, W), or (B, M/2, H, W) with the gate; contiguous, in the dtype of ``x``. Sums are taken in float32.

    Raises:
        InputError: if the kernel does not apply; ``unsupported_reason`` says why beforehand.
    """
    require("exda::depthwise", unsupported_reason(x, weight, bias, activation, shift))
    return _depthwise(x, weight, bias, activation, shift)


def compute(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    shift: Tensor | None = None,
    valid: int | None = None,
) -> Tensor:
    """Computes ``depthwise`` inside of an operator: without checks and without gradients.

    Args:
        x: (B, M, H, W).
        weight: (M, 1, 3, 3).
        bias: (M,) or None.
        activation: ``"none"``, ``"gelu"`` or ``"gate"``.
        shift: (M,) or None.
        valid: width of the maps if their rows are longer than they are wide (``pitch``), else None.
    """
    out = _empty_output(x, weight, bias, activation)
    depthwise_forward.fill(x, weight, bias, shift, None, out, activation, valid)
    return out


@operator("depthwise")
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, shift: Tensor | None = None) -> Tensor:
    return compute(x, weight, bias, activation, shift)


@fake(_depthwise)
def _empty_output(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, shift: Tensor | None = None
) -> Tensor:
    """Allocates ``depthwise``'s output; also what a tracer runs in place of the kernel."""
    channels = x.shape[1] // 2 if activation == "gate" else x.shape[1]
    return torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, str, Tensor | None], output: Tensor) -> None:
    x, weight, bias, ctx.activation, shift = inputs
    ctx.save_for_backward(x, weight, bias, shift)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, shift = ctx.saved_tensors
    # The dispatcher drops trailing arguments that equal their defaults: without a shift there are four inputs.
    (need_x, need_weight, need_bias, _), need_shift = ctx.needs_input_grad[:4], any(ctx.needs_input_grad[4:])
    dx, dweight, dbias = depthwise_gradients(
        dy, x, weight, bias, ctx.activation, need_x or need_shift, need_weight or need_bias, shift
    )
    gradients = (
        dx if need_x else None,
        dweight if need_weight else None,
        dbias if need_bias else None,
        None,
        # `shift` is added to every pixel of x before the padding.
        widen(dx).sum((0, 2, 3)).to(shift.dtype) if need_shift else None,
    )
    return gradients[: len(ctx.needs_input_grad)]


differentiable(_depthwise, _backward, _save)
