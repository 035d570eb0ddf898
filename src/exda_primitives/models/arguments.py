"""Infers from a state dict the constructor arguments that Restormer and the networks made from it share."""

from __future__ import annotations

from typing import Any

from .architecture import ArchitectureMismatch, StateShapes, expansion_factor

LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def unet_arguments(state: StateShapes, attention: str = "attn") -> dict[str, Any]:
    """Returns the constructor arguments that Restormer and the networks made from it share.

    Args:
        state: shapes of the state dict.
        attention: a block's attribute that is the attention.

    Raises:
        ArchitectureMismatch: if the state dict is of no such network.
    """
    depths = {level: state.depth(level) for level in LEVELS}
    blocks = [f"{level}.0" for level, depth in depths.items() if depth]
    first = blocks[0] if blocks else "encoder_level1.0"
    # The kind of norms without parameters (Histoformer's) cannot be told: "WithBias", the official default, is assumed.
    with_norm_bias = f"{first}.norm1.body.weight" not in state or f"{first}.norm1.body.bias" in state
    return {
        "inp_channels": state.size("patch_embed.proj.weight", 1),
        "out_channels": state.size("output.weight"),
        "dim": state.size("patch_embed.proj.weight"),
        "num_blocks": list(depths.values()),
        "num_refinement_blocks": state.depth("refinement"),
        # A level without blocks has no attention to read the number of heads from; any number builds the same network.
        "heads": [state.size(f"{level}.0.{attention}.temperature") if depths[level] else 1 for level in LEVELS],
        "ffn_expansion_factor": expansion_factor(
            [(state.size(output), state.size(output, 1)) for output in (f"{b}.ffn.project_out.weight" for b in blocks)]
        ),
        "bias": f"{first}.{attention}.qkv.bias" in state,
        "LayerNorm_type": "WithBias" if with_norm_bias else "BiasFree",
    }


def check_equal_channels(state: StateShapes) -> None:
    """Checks that the image can be added to the output, as these networks do.

    Raises:
        ArchitectureMismatch: if input and output have different numbers of channels: it is another network.
    """
    given, returned = state.size("patch_embed.proj.weight", 1), state.size("output.weight")
    if given != returned:
        raise ArchitectureMismatch(
            f"it takes {given} channels and returns {returned}, to which the image cannot be added"
        )
