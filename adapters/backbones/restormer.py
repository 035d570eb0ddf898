"""Restormer (CVPR 2022): a U-net of four levels and a refinement at full size."""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

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

register_own(Backbone("restormer", CHILDREN, STAGES, multiple_of=8))
