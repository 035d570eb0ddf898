"""AdaIR (ICLR 2025): Restormer with frequency blocks of three cross attentions, at the latent and in the decoder."""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

_FREQUENCY = (
    Stage("fre1", "latent", 8),
    Stage("fre2", "decoder", 4),
    Stage("fre3", "decoder", 2),
)


register_own(Backbone("adair", CHILDREN | {stage.prefix for stage in _FREQUENCY}, STAGES + _FREQUENCY, multiple_of=8))
