"""Constructors of the layers that the attentions are made of."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ConfigError


def pointwise(in_channels: int, out_channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """Returns a 1x1 convolution; ``factory`` as in ``ExDAModule.host_layers``."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)


def depthwise(channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """Returns a depthwise 3x3 convolution that keeps the map's size; ``factory`` as in ``ExDAModule.host_layers``."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias, **factory)


def width_of(layer: nn.Module) -> int:
    """Returns the output channels of a convolution or linear layer, or of the first such layer inside a wrapper.

    Raises:
        ConfigError: for a module that holds none.
    """
    for part in layer.modules():
        for name in ("out_channels", "out_features"):
            width = getattr(part, name, None)
            if isinstance(width, int):
                return width
    raise ConfigError(f"expected a convolution or linear layer, or a module that holds one, found {layer!r}")
