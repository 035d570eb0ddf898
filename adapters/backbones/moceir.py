"""MoCE-IR (CVPR 2025): Restormer's U-net under other names, with experts beside every attention on the way up.

The stages are those of the four levels that all published checkpoints have.
"""

from __future__ import annotations

from typing import Any

from exda_primitives.models import MoCEIR
from exda_primitives.models.moceir_experts import RankType, expert_ranks
from exda_primitives.patching import (
    Architecture,
    Backbone,
    Stage,
    StateShapes,
    Unlike,
    expansion_factor,
    register_adapter,
)

from .restormer import check_residual

_STAGES = (
    Stage("enc.0", "encoder", 1),
    Stage("enc.1", "encoder", 2),
    Stage("enc.2", "encoder", 4),
    Stage("latent", "latent", 8),
    Stage("dec.0", "decoder", 4),
    Stage("dec.1", "decoder", 2),
    Stage("dec.2", "decoder", 1),
    Stage("refinement", "refinement", 1),
)
_CHILDREN = frozenset({"freq_embed", "enc", "latent", "dec", "refinement"})
_SMALL = {
    "heads": [1, 2, 4, 8],
    "num_blocks": [4, 6, 6, 8],
    "num_dec_blocks": [2, 4, 4],
    "num_refinement_blocks": 4,
    "stage_depth": [1, 1, 1],
    "depth_type": "constant",
    "rank_type": "spread",
}


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("freq_embed.high_conv.0.conv.weight")
    check_residual(state)
    levels = state.depth("enc") + 1
    # By level, from full size down; the decoder is stored the other way round.
    encoder = [f"enc.{level}.0" for level in range(levels - 1)] + ["latent"]
    decoder = [f"dec.{levels - 2 - level}.2" for level in range(levels - 1)]
    dim = state.size("patch_embed.proj.weight")
    return {
        "inp_channels": state.size("patch_embed.proj.weight", 1),
        "out_channels": state.size("output.weight"),
        "dim": dim,
        "levels": levels,
        "heads": [_heads(state, group, [*decoder, "latent"][level]) for level, group in enumerate(encoder)],
        "num_blocks": [state.depth(f"{group}.layers") for group in encoder],
        "num_dec_blocks": [state.depth(f"{group}.layers") for group in decoder],
        "num_refinement_blocks": state.depth("refinement.layers"),
        "ffn_expansion_factor": _factor(state, [*encoder, *decoder, "refinement"]),
        "LayerNorm_type": "WithBias" if _with_norm_bias(state, [*encoder, *decoder, "refinement"]) else "BiasFree",
        "bias": "output.bias" in state,
        "depth_type": "constant",
        "stage_depth": [1] * (levels - 1),
        **_experts(state, {dim * 2**level: f"{group}.layers.0.adapter" for level, group in enumerate(decoder)}),
    }


def _heads(state: StateShapes, encoder: str, decoder: str) -> int:
    for temperature in (f"{encoder}.layers.0.mixer.temperature", f"{decoder}.layers.0.shared.temperature"):
        if temperature in state:
            return state.size(temperature)
    # A level without blocks has no heads to tell.
    return 1


def _factor(state: StateShapes, groups: list[str]) -> float:
    outputs = [f"{group}.layers.0.ffn.project_out.weight" for group in groups if state.depth(f"{group}.layers")]
    return expansion_factor([(state.size(output), state.size(output, 1)) for output in outputs], likely=(2.0,))


def _with_norm_bias(state: StateShapes, groups: list[str]) -> bool:
    norms = [f"{group}.layers.0.norms.0.body" for group in groups]
    return any(f"{norm}.bias" in state for norm in norms) or not any(f"{norm}.weight" in state for norm in norms)


def _experts(state: StateShapes, adapters: dict[int, str]) -> dict[str, Any]:
    """By the width of each level of the decoder, the name of one of its adapters."""
    found = {
        width: [state.size(f"{adapter}.experts.{i}.0.proj.0.weight") for i in range(state.depth(f"{adapter}.experts"))]
        for width, adapter in adapters.items()
        if state.depth(f"{adapter}.experts")
    }
    if not found:
        return {}
    number = max(map(len, found.values()))
    first = next(iter(found.values()))[0]
    # "spread" first, as published; of several rules that fit, any builds the same network.
    rules: list[tuple[RankType, int]] = [("spread", 2), ("constant", first), ("lin", first), ("double", first)]
    rules += [("exp", first), *(("fact", rank) for rank in range(1, 9))]
    for rank_type, rank in rules:
        if all(expert_ranks(rank_type, rank, width, number) == ranks for width, ranks in found.items()):
            return {"num_experts": number, "rank_type": rank_type, "rank": rank}
    raise Unlike(f"no rule gives experts of {' and '.join(map(str, found.values()))} channels")


register_adapter(Backbone("moceir", _CHILDREN, _STAGES, multiple_of=8))
register_adapter(Architecture("moceir", MoCEIR, _infer, {"moceir-s": _SMALL, "moceir": {**_SMALL, "dim": 48}}))
