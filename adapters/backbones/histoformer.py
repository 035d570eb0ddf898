"""Histoformer (ECCV 2024): Restormer's U-net of histogram attention, the image fed in again at each size."""

from __future__ import annotations

from typing import Any

from exda_primitives.models import Histoformer
from exda_primitives.patching import Architecture, Backbone, StateShapes, register_adapter

from .restormer import CHILDREN, STAGES, check_residual, unet_arguments

_SKIPS = {"skip_patch_embed1", "skip_patch_embed2", "skip_patch_embed3"}

_PUBLISHED = {"dim": 36, "num_blocks": [4, 4, 6, 8], "ffn_expansion_factor": 2.667}


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("skip_patch_embed1.proj.1.weight")
    check_residual(state)
    return unet_arguments(state, "attn_g") | {"dual_pixel_task": "skip_conv.weight" in state}


register_adapter(Backbone("histoformer", CHILDREN | _SKIPS, STAGES, multiple_of=8, sorts=True))
register_adapter(Architecture("histoformer", Histoformer, _infer, {"histoformer": _PUBLISHED}))
