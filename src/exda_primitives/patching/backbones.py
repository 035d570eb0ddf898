"""Finds known backbones in a model, and the stage of each attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from .adapter import Backbone, Stage
from .registry import known_backbones

MULTIPLE = 8
"""Multiple of image sides for a model without a known backbone: most U-nets halve three times; harmless to others."""


def backbones_in(model: nn.Module) -> dict[str, Backbone]:
    """Returns prefix -> backbone for the model and every module in it that is a known network.

    If several backbones fit a module, the one with the most required children is taken. A prefix is the module's name
    and a dot; the model's own is empty.
    """
    known = sorted(known_backbones().values(), key=lambda backbone: -len(backbone.children))
    fitting = {}
    for name, module in model.named_modules():
        # Most modules are layers, without any child that a network could be recognised by.
        backbone = next((each for each in known if each.fits(module)), None) if module._modules else None
        if backbone is not None:
            fitting[f"{name}." if name else ""] = backbone
    return fitting


def multiple_of(backbones: Mapping[str, Backbone]) -> int | None:
    """Returns what height and width must be divisible by for all of ``backbones_in``; None if there are none."""
    return max((each.multiple_of for each in backbones.values()), default=None)


def known_multiple(model: nn.Module) -> int | None:
    """Returns what height and width must be divisible by, if the model is or holds a known backbone; else None."""
    return multiple_of(backbones_in(model))


class Location(NamedTuple):
    """The backbone that a module is in, and its stage there; None for what is unknown."""

    backbone: Backbone | None
    stage: Stage | None


def location_of(backbones: Mapping[str, Backbone], name: str) -> Location:
    """Returns the location of the module ``name`` in a model with these ``backbones_in``."""
    for prefix, backbone in backbones.items():
        if name.startswith(prefix):
            return Location(backbone, backbone.stage_of(name.removeprefix(prefix)))
    return Location(None, None)


def stages_in(model: nn.Module, attentions: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str | None]:
    """Returns names of each attention -> its stage in ``model``; None if it is unknown."""
    backbones = backbones_in(model)
    return stages_of({names: location_of(backbones, names[0]) for names in attentions})


def stages_of(locations: Mapping[tuple[str, ...], Location]) -> dict[tuple[str, ...], str | None]:
    """Returns names of each attention -> its stage; None if it is unknown."""
    return {names: location.stage.stage if location.stage else None for names, location in locations.items()}


def idle_stages(model: nn.Module, backbones: Mapping[str, Backbone]) -> Iterator[str]:
    """Yields a note for each stage that no module is in: its prefix is misspelt, or earlier stages take all it fits."""
    names = [name for name, _ in model.named_modules()]
    for prefix, backbone in backbones.items():
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        for stage in backbone.stages:
            fitting = [name for name in inside if fnmatchcase(name, f"{stage.prefix}.*")]
            if not fitting and not any(fnmatchcase(name, stage.prefix) for name in inside):
                yield f"backbone {backbone.name}: its stage {stage.prefix!r} fits no module of {prefix or 'the model'}"
            elif fitting and all(backbone.stage_of(name) is not stage for name in fitting):
                yield f"backbone {backbone.name}: its stage {stage.prefix!r} comes after one that takes all it fits"
