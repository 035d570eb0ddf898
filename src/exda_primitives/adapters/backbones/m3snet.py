"""M3SNet (2023): NAFNet's U-net with merged skip connections; the attentions are its middle blocks."""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

register_own(
    Backbone(
        "m3snet",
        frozenset({"intro", "encoders", "downs", "middle_blks", "middle", "middle_ups", "ups", "decoders", "ending"}),
        (Stage("middle_blks", "latent", 16),),
        # It pads its input itself, but does not crop its output.
        multiple_of=16,
    )
)
