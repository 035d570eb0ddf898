"""The layers of a step on maps that lie pixel by pixel (channels_last), which oneDNN and PyTorch compute fastest."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bare import is_bare
from ..precision import widen
from ..reference import step
from ..terms import NormTerms, TensorFn
from ..torch.recompute import recomputes
from .layout import by_channel, by_pixel


class Pair(NamedTuple):
    """Weights and biases of a 1x1 convolution and the depthwise 3x3 one after it."""

    weight: Tensor
    bias: Tensor | None
    depthwise_weight: Tensor
    depthwise_bias: Tensor | None


def pairs(first: TensorFn, second: TensorFn, count: int) -> list[Pair]:
    """The two convolutions, outputs split into equal parts: a slice of channels would be copied for what follows."""
    assert is_bare(first)
    assert is_bare(second)
    held = first.weight, first.bias, second.weight, second.bias
    split: Any = [[None] * count if each is None else each.chunk(count) for each in held]
    return [Pair(*each) for each in zip(*split, strict=True)]


def widened(pair: Pair, channels: int) -> Pair:
    """With channels of zeros."""
    missing = channels - len(pair.weight)
    if not missing:
        return pair
    held = [None if each is None else F.pad(each, [0, 0] * (each.ndim - 1) + [0, missing]) for each in pair]
    return Pair(*cast(Any, held))


def convolved(x: Tensor, pair: Pair, rows: slice = slice(None)) -> Tensor:
    """(B, C, H, W) -> (B, C', H, W), and of that these rows."""
    u = pointwise(x, pair.weight, pair.bias)
    return _convolution(u, pair.depthwise_weight, pair.depthwise_bias, 1, u.shape[1])[:, :, rows]


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of all channels."""
    return _convolution(x, weight, bias, 0, 1)


def normalised(x: Tensor, norm: NormTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W) in the accumulation dtype."""
    if recomputes(x, norm.weight, norm.bias) and not norm.subtract_mean:
        return step.norm(x, norm)
    pixels, shape = by_pixel(widen(x)), x.shape[1:2]
    weight, bias = (None if each is None else widen(each) for each in norm[:2])
    if norm.subtract_mean:
        return by_channel(F.layer_norm(pixels, shape, weight, bias, norm.eps))
    # One pass that finds the deviations, without their derivatives; its output, about the mean, is not used.
    _, _, inverse_deviation = torch.native_layer_norm(pixels, shape, None, None, norm.eps)
    out = pixels * inverse_deviation
    if weight is not None:
        out = out * weight
    return by_channel(out if bias is None else out + bias)


def gelu(x: Tensor) -> Tensor:
    """Of a map: as rows of pixels, which are contiguous, it takes a third of the time."""
    return by_channel(F.gelu(by_pixel(x)))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    # By oneDNN whatever the size: for few pixels and for one thread, F.conv2d takes a path that is twice as long.
    if x.dtype in (torch.float32, torch.bfloat16):
        return torch.mkldnn_convolution(x, weight, bias, (padding, padding), (1, 1), (1, 1), groups)
    return F.conv2d(x, weight, bias, padding=padding, groups=groups)
