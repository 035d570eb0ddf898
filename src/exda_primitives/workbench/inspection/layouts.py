"""Where an attention has its channels, by the word of its family: what a third party's takes need not look it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...patching import Family, Mismatch
from ...patching.probe import probe
from ...patching.registry import known_families
from ...primitives import ExDAModule

_CHANNELS, _HEIGHT, _WIDTH = 5, 2, 3
# Of (B, C, H, W), and of tokens (B, H*W, C).
_USUAL = {4: 1, 3: 2}


class Layout(NamedTuple):
    """How an attention takes its maps.

    Attributes:
        channels_first: makes (B, C, H, W) of a map that it takes or returns, and (B, N, C) of its tokens.
        source: index of the input from which its values come.
    """

    channels_first: Callable[[Tensor], Tensor]
    source: int


def layout_of(attention: nn.Module) -> Layout:
    """By the word of the attention's family.

    Raises:
        ConfigError: for an attention whose family's layout has no axis of the channels.
    """
    family = next((each for each in known_families().values() if not _is_usual(each) and _is_of(attention, each)), None)
    if family is None:
        return Layout(lambda x: x, -1)
    axis = _axis(family)
    if axis is None:
        raise ConfigError(
            f"the family {family.name!r} makes {tuple(_example(family).shape)} of a map "
            f"{(1, _CHANNELS, _HEIGHT, _WIDTH)}: inspection knows maps and tokens with one axis of channels; leave its "
            f"attentions out with blocks=..."
        )
    return Layout(lambda x: x.movedim(axis, _USUAL[x.ndim]), family.source)


def _is_usual(family: Family) -> bool:
    return _axis(family) == _USUAL.get(_example(family).ndim, -1)


def _axis(family: Family) -> int | None:
    shape = list(_example(family).shape)
    return shape.index(_CHANNELS) if len(shape) in _USUAL and shape.count(_CHANNELS) == 1 else None


def _example(family: Family) -> Tensor:
    maps = [torch.empty(1, _CHANNELS, _HEIGHT, _WIDTH, device="meta") for _ in range(family.inputs)]
    return family.arguments(maps)[0]


def _is_of(attention: nn.Module, family: Family) -> bool:
    if isinstance(attention, ExDAModule):
        return type(attention) is family.replacement
    try:
        return any(probe(attention, family, parts) is None for parts in family.candidates(attention))
    except Mismatch:
        return False
