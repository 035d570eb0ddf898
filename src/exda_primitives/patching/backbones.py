"""What is known of the networks that a model is, or holds."""

from __future__ import annotations

from torch import nn

from .adapter import Backbone
from .registry import known_backbones

MULTIPLE = 8
"""For a model that is no known backbone: three halvings, as most U-nets have; harmless to others."""


def backbones_in(model: nn.Module) -> list[Backbone]:
    """All that fit the model or a module in it."""
    return [each for module in model.modules() for each in known_backbones().values() if each.fits(module)]


def known_multiple(model: nn.Module) -> int | None:
    """What height and width have to be divisible by, where the model is, or holds, a backbone that is known."""
    return max((each.multiple_of for each in backbones_in(model)), default=None)
