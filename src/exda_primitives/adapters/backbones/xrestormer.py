"""X-Restormer (ECCV 2024): Restormer with an additional attention in overlapping windows in every block."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

# The latent level, at 1/8 of the image, is cut into windows of 8 pixels: sides must be multiples of 64.
register_own(Backbone("xrestormer", CHILDREN | {"latent.0.spatial_attn"}, STAGES, multiple_of=64))
