"""AMIR (MICCAI 2024): Restormer for medical images; an instruction computed from the image routes every level."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

register_own(Backbone("amir", CHILDREN | {"dict_generator", "channel_routing_latent"}, STAGES, multiple_of=8))
