"""X-Restormer (ECCV 2024): Restormer with an attention in overlapping windows in every block."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

# Windows of 8 at 1/8 of the image.
register_own(Backbone("xrestormer", CHILDREN | {"latent.0.spatial_attn"}, STAGES, multiple_of=64))
