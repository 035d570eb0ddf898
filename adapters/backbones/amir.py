"""AMIR (MICCAI 2024): Restormer for medical images, every level routed by what the image asks for."""

from __future__ import annotations

from typing import Any

from exda_primitives.models import AMIR
from exda_primitives.patching import Architecture, Backbone, StateShapes, register_adapter

from .restormer import CHILDREN, STAGES, check_residual, unet_arguments


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("dict_generator.dictionary")
    check_residual(state)
    return unet_arguments(state)


register_adapter(Backbone("amir", CHILDREN | {"dict_generator", "channel_routing_latent"}, STAGES, multiple_of=8))
register_adapter(Architecture("amir", AMIR, _infer))
