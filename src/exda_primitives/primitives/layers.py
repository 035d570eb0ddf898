"""The two kinds of convolution that these attentions are made of."""

from __future__ import annotations

from typing import Any

from torch import nn


def pointwise(in_channels: int, out_channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)


def depthwise(channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """3x3 convolution of every channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias, **factory)
