"""Modules exchanged in their parents, all or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from .parents import HOOKS, ParentHook, set_hook


class Holding(NamedTuple):
    """What a parent is to hold under a name, and the kind of hook that tells it what the parent knows."""

    module: nn.Module
    hook: type[ParentHook] | None


def swap(target: nn.Module, wanted: Mapping[str, Holding]) -> None:
    """Puts modules under their full names in ``target``; on any error everything is as it was before."""
    places = [(target.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], name) for name in wanted]
    before = [(parent._modules[key], {held: dict(vars(parent)[held]) for held in HOOKS}) for parent, key, _ in places]
    try:
        for parent, key, name in places:
            parent._modules[key] = wanted[name].module
            set_hook(parent, key, wanted[name].hook)
    except BaseException:
        for (parent, key, _), (module, hooks) in zip(places, before, strict=True):
            parent._modules[key] = module
            for held, earlier in hooks.items():
                _refill(vars(parent)[held], earlier)
        raise


def _refill(held: dict[int, Any], earlier: Mapping[int, Any]) -> None:
    # The very dictionary: handles of hooks hold on to it.
    held.clear()
    held.update(earlier)
