"""Classifiers with channel attention on tokens; they have no decoder, so all of their stages are ``encoder``.

XCiT (NeurIPS 2021) with patches of 8 or 16 pixels, EdgeNeXt (2022): the official classes and timm's.
"""

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own

_XCIT = frozenset({"patch_embed.proj.4", "blocks.0.local_mp", "cls_attn_blocks"})
register_own(Backbone("xcit-p8", _XCIT, (Stage("blocks", "encoder", 8),), multiple_of=8))
# Patches of 16 pixels take one more convolution of stride 2, ``patch_embed.proj.6``.
register_own(Backbone("xcit-p16", _XCIT | {"patch_embed.proj.6"}, (Stage("blocks", "encoder", 16),), multiple_of=16))

# A stem of stride 4, then one halving from stage to stage.
_EDGENEXT = tuple(Stage(f"stages.{i}", "encoder", 4 * 2**i) for i in range(4))
register_own(Backbone("edgenext", frozenset({"stages.3", "stages.*.xca"}), _EDGENEXT, multiple_of=32))
