"""ExDA as a network of its own; its children are Restormer's, and so is the backbone that it is known as."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exda_primitives.models.exda import SIZES, ExDA
from exda_primitives.patching import Architecture, StateShapes, Unlike, register_adapter
from exda_primitives.primitives import ExDAConfig

from .restormer import LEVELS, unet_arguments


def _infer(state: StateShapes) -> dict[str, Any]:
    arguments = unet_arguments(state)
    heads, attention = next(
        ((h, f"{level}.0.attn") for level, h in zip(LEVELS, arguments["heads"], strict=True) if state.depth(level)),
        (1, "encoder_level1.0.attn"),
    )
    phi, value = f"{attention}.token.phi.weight", f"{attention}.value.conv_out.weight"
    if phi not in state and value not in state:
        raise Unlike(f"neither {phi} nor {value}")
    # Stride, scale and position leave no trace in a state dict: the paper's are assumed.
    config = replace(
        ExDAConfig(init="paper"),
        tokens=state.size(phi) // heads if phi in state else 0,
        value="residual" if value in state else "none",
    )
    return arguments | {"config": config}


register_adapter(Architecture("exda", ExDA, _infer, SIZES))
