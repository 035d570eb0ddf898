"""MoCE-IR (CVPR 2025): Restormer's U-net under other names, with experts beside every attention of the decoder.

The stages are those of a network of four levels, as all published checkpoints are.
"""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

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
register_own(Backbone("moceir", _CHILDREN, _STAGES, multiple_of=8))
