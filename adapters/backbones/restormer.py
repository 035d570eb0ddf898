"""Restormer (CVPR 2022): a U-net of four levels and a refinement at full size."""

from __future__ import annotations

from typing import Any

from exda_primitives.models import Restormer
from exda_primitives.patching import (
    Architecture,
    Backbone,
    Stage,
    StateShapes,
    Unlike,
    expansion_factor,
    register_adapter,
)

STAGES = (
    Stage("encoder_level1", "encoder", 1),
    Stage("encoder_level2", "encoder", 2),
    Stage("encoder_level3", "encoder", 4),
    Stage("latent", "latent", 8),
    Stage("decoder_level3", "decoder", 4),
    Stage("decoder_level2", "decoder", 2),
    Stage("decoder_level1", "decoder", 1),
    Stage("refinement", "refinement", 1),
)
CHILDREN = frozenset(stage.prefix for stage in STAGES)
LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def unet_arguments(state: StateShapes, attention: str = "attn") -> dict[str, Any]:
    """The constructor arguments that Restormer and the networks made from it share."""
    depths = {level: state.depth(level) for level in LEVELS}
    blocks = [f"{level}.0" for level, depth in depths.items() if depth]
    first = blocks[0] if blocks else "encoder_level1.0"
    with_norm_bias = f"{first}.norm1.body.weight" not in state or f"{first}.norm1.body.bias" in state
    return {
        "inp_channels": state.size("patch_embed.proj.weight", 1),
        "out_channels": state.size("output.weight"),
        "dim": state.size("patch_embed.proj.weight"),
        "num_blocks": list(depths.values()),
        "num_refinement_blocks": state.depth("refinement"),
        # A level without blocks has no heads to tell.
        "heads": [state.size(f"{level}.0.{attention}.temperature") if depths[level] else 1 for level in LEVELS],
        "ffn_expansion_factor": expansion_factor(
            [(state.size(output), state.size(output, 1)) for output in (f"{b}.ffn.project_out.weight" for b in blocks)]
        ),
        "bias": f"{first}.{attention}.qkv.bias" in state,
        "LayerNorm_type": "WithBias" if with_norm_bias else "BiasFree",
    }


def check_residual(state: StateShapes) -> None:
    """Raises Unlike for an output that the image cannot be added to: it is of a network that does something else."""
    given, returned = state.size("patch_embed.proj.weight", 1), state.size("output.weight")
    if given != returned:
        raise Unlike(f"it takes {given} channels and returns {returned}, to which the image cannot be added")


def _infer(state: StateShapes) -> dict[str, Any]:
    dual_pixel = "skip_conv.weight" in state
    if not dual_pixel:
        check_residual(state)
    return unet_arguments(state) | {"dual_pixel_task": dual_pixel}


register_adapter(Backbone("restormer", CHILDREN, STAGES, multiple_of=8))
register_adapter(Architecture("restormer", Restormer, _infer))
