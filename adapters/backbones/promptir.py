"""PromptIR (NeurIPS 2023): Restormer with prompts and one block after each of them on the way up."""

from __future__ import annotations

from typing import Any

from exda_primitives.models import PromptIR
from exda_primitives.patching import Architecture, Backbone, Stage, StateShapes, register_adapter

from .restormer import CHILDREN, STAGES, check_residual, unet_arguments

_PROMPTED = (
    Stage("noise_level3", "decoder", 8),
    Stage("noise_level2", "decoder", 4),
    Stage("noise_level1", "decoder", 2),
)


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("prompt1.prompt_param")
    check_residual(state)
    return unet_arguments(state)


register_adapter(
    Backbone(
        "promptir",
        CHILDREN | {stage.prefix for stage in _PROMPTED} | {"prompt1", "prompt2", "prompt3"},
        STAGES + _PROMPTED,
        multiple_of=8,
    )
)
register_adapter(Architecture("promptir", PromptIR, _infer))
