"""AMIR (MICCAI 2024): Restormer for medical images, every level routed by what the image asks for."""

from exda_primitives.patching import Backbone, register_adapter

from .restormer import CHILDREN, STAGES

register_adapter(Backbone("amir", CHILDREN | {"dict_generator", "channel_routing_latent"}, STAGES, multiple_of=8))
