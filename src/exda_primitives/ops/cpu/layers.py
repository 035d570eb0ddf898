"""The layers of a step on channels_last maps, the layout in which oneDNN and PyTorch compute them fastest."""

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
    """Splits two convolutions into ``count`` pairs by their output channels: q, k and v, or a gate and its value.

    Computed as one map, each part would be a slice of its channels, which the next operation would copy.
    """
    assert is_bare(first)
    assert is_bare(second)
    held = first.weight, first.bias, second.weight, second.bias
    split: Any = [[None] * count if each is None else each.chunk(count) for each in held]
    return [Pair(*each) for each in zip(*split, strict=True)]


def padded(pair: Pair, channels: int) -> Pair:
    """Pads a pair with zero weights to this many output channels."""
    missing = channels - len(pair.weight)
    if not missing:
        return pair
    held = [None if each is None else F.pad(each, [0, 0] * (each.ndim - 1) + [0, missing]) for each in pair]
    return Pair(*cast(Any, held))


def convolved(x: Tensor, pair: Pair, rows: slice = slice(None)) -> Tensor:
    """Applies both convolutions, (B, C, H, W) -> (B, C', H, W), and returns these rows of the output."""
    u = pointwise(x, pair.weight, pair.bias)
    return _convolution(u, pair.depthwise_weight, pair.depthwise_bias, 1, u.shape[1])[:, :, rows]


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution, (B, C, H, W) -> (B, C', H, W)."""
    return _convolution(x, weight, bias, 0, 1)


def normalised(x: Tensor, norm: NormTerms) -> Tensor:
    """Layer normalisation over the channels, (B, C, H, W) -> (B, C, H, W), in the accumulation dtype."""
    if recomputes(x, norm.weight, norm.bias) and not norm.subtract_mean:
        return step.norm(x, norm)
    pixels, shape = by_pixel(widen(x)), x.shape[1:2]
    weight, bias = (None if each is None else widen(each) for each in norm[:2])
    if norm.subtract_mean:
        return by_channel(F.layer_norm(pixels, shape, weight, bias, norm.eps))
    # x / std with the mean left in: one pass gives 1 / std, which is not differentiable here; its normalised output,
    # with the mean subtracted, is not used.
    _, _, inverse_deviation = torch.native_layer_norm(pixels, shape, None, None, norm.eps)
    out = pixels * inverse_deviation
    if weight is not None:
        out = out * weight
    return by_channel(out if bias is None else out + bias)


def gelu(x: Tensor) -> Tensor:
    """GELU of a channels_last map, as a contiguous (B, H, W, C) tensor, which takes a third of the time."""
    return by_channel(F.gelu(by_pixel(x)))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    # By oneDNN at any size: for few pixels, and with one thread, F.conv2d chooses a path that takes twice as long.
    if x.dtype in (torch.float32, torch.bfloat16):
        return torch.mkldnn_convolution(x, weight, bias, (padding, padding), (1, 1), (1, 1), groups)
    return F.conv2d(x, weight, bias, padding=padding, groups=groups)
