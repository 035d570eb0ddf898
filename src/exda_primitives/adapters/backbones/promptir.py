"""PromptIR (NeurIPS 2023): Restormer with three prompts in the decoder, each followed by one more block."""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

_PROMPTED = (
    Stage("noise_level3", "decoder", 8),
    Stage("noise_level2", "decoder", 4),
    Stage("noise_level1", "decoder", 2),
)


register_own(
    Backbone(
        "promptir",
        CHILDREN | {stage.prefix for stage in _PROMPTED} | {"prompt1", "prompt2", "prompt3"},
        STAGES + _PROMPTED,
        multiple_of=8,
    )
)
