"""Histoformer (ECCV 2024): Restormer's U-net with histogram attention; the image is fed in again at each size."""

from exda_primitives.patching import Backbone
from exda_primitives.patching.registry import register_own

from .restormer import CHILDREN, STAGES

_SKIPS = {"skip_patch_embed1", "skip_patch_embed2", "skip_patch_embed3"}

register_own(Backbone("histoformer", CHILDREN | _SKIPS, STAGES, multiple_of=8, sorts=True))
