"""ExDA as a network of its own; its children are Restormer's, and so is the backbone that it is known as."""

from __future__ import annotations

from typing import Any

from exda_primitives.models.exda import SIZES, ExDA
from exda_primitives.patching import Architecture, StateShapes, Unlike, register_adapter
from exda_primitives.primitives.config import common

from .restormer import check_residual, unet_arguments


def _infer(state: StateShapes) -> dict[str, Any]:
    built_in = {name: each.config for name, each in state.attentions.items() if each.built_in}
    config = common([(each, _channels_per_head(state, name)) for name, each in built_in.items()]) if built_in else None
    if config is None:
        raise Unlike("no ExDA attentions that were built in, all with one configuration")
    check_residual(state)
    return unet_arguments(state) | {"config": config}


def _channels_per_head(state: StateShapes, attention: str) -> int:
    return state.size(f"{attention}.project_out.weight") // max(state.size(f"{attention}.temperature"), 1)


register_adapter(Architecture("exda", ExDA, _infer, SIZES))
