"""Restormer (CVPR 2022): a U-net of four levels and a refinement at full size; the whole network, or a part of it.

Reti-Diff's has no refinement; Perceive-IR has encoder and decoder in separate modules.
"""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

_ENCODER = (
    Stage("encoder_level1", "encoder", 1),
    Stage("encoder_level2", "encoder", 2),
    Stage("encoder_level3", "encoder", 4),
    Stage("latent", "latent", 8),
)
_DECODER = (
    Stage("decoder_level3", "decoder", 4),
    Stage("decoder_level2", "decoder", 2),
    Stage("decoder_level1", "decoder", 1),
)
_REFINEMENT = (Stage("refinement", "refinement", 1),)
STAGES = _ENCODER + _DECODER + _REFINEMENT
CHILDREN = frozenset(stage.prefix for stage in STAGES)

register_own(Backbone("restormer", CHILDREN, STAGES, multiple_of=8))
for _name, _stages, _multiple in (
    ("restormer-unrefined", _ENCODER + _DECODER, 8),
    ("restormer-encoder", _ENCODER, 8),
    ("restormer-decoder", _DECODER + _REFINEMENT, 1),
    ("restormer-decoder-unrefined", _DECODER, 1),
):
    _children = frozenset(stage.prefix for stage in _stages)
    # A module with one of the remaining children is not this part but another combination of levels.
    register_own(Backbone(_name, _children, _stages, _multiple, without=CHILDREN - _children))
