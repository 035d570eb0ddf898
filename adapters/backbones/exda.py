"""ExDA as a network of its own; its children are Restormer's, and so is the backbone that it is known as."""

from __future__ import annotations

from typing import Any

from exda_primitives.models.exda import SIZES, ExDA
from exda_primitives.patching import Architecture, StateShapes, Unlike, register_adapter

from .restormer import check_residual, unet_arguments


def _infer(state: StateShapes) -> dict[str, Any]:
    configs = {description.config for description in state.attentions.values() if description.built_in}
    if len(configs) != 1:
        raise Unlike("no ExDA attentions that were built in, all with one configuration")
    check_residual(state)
    return unet_arguments(state) | {"config": configs.pop()}


register_adapter(Architecture("exda", ExDA, _infer, SIZES))
