"""AdaIR (ICLR 2025): Restormer with frequency blocks of three cross attentions, at the latent and on the way up."""

from __future__ import annotations

from typing import Any

from exda_primitives.models import AdaIR
from exda_primitives.patching import Architecture, Backbone, Stage, StateShapes, register_adapter

from .restormer import CHILDREN, STAGES, check_residual, unet_arguments

_FREQUENCY = (
    Stage("fre1", "latent", 8),
    Stage("fre2", "decoder", 4),
    Stage("fre3", "decoder", 2),
)


def _infer(state: StateShapes) -> dict[str, Any]:
    # Without its frequency blocks an AdaIR is a Restormer, in keys and in function.
    state.require("fre1.para1")
    check_residual(state)
    return unet_arguments(state)


register_adapter(
    Backbone("adair", CHILDREN | {stage.prefix for stage in _FREQUENCY}, STAGES + _FREQUENCY, multiple_of=8)
)
register_adapter(Architecture("adair", AdaIR, _infer))
