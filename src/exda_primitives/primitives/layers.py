"""The layers that these attentions are made of."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ConfigError


def pointwise(in_channels: int, out_channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """A 1x1 convolution; ``factory`` as ``ExDAModule.host_layers`` gets it."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)


def depthwise(channels: int, bias: bool, factory: dict[str, Any]) -> nn.Conv2d:
    """A 3x3 convolution of every channel by itself; ``factory`` as ``ExDAModule.host_layers`` gets it."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias, **factory)


def width_of(layer: nn.Module) -> int:
    """Output channels of a convolution or linear layer, or of the first one inside what wraps it.

    Raises:
        ConfigError: for a module without any.
    """
    for part in layer.modules():
        for name in ("out_channels", "out_features"):
            width = getattr(part, name, None)
            if isinstance(width, int):
                return width
    raise ConfigError(f"expected a convolution or linear layer, or a module that holds one, found {layer!r}")
