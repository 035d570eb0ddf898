"""Networks that are Restormer's U-net with other names for its levels.

NDR-Restore (TIP 2024), ConStyle v2 (2024), MONAI's ``Restormer`` of two to five levels, Text-IF (CVPR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

from exda_primitives.patching import Backbone, Stage
from exda_primitives.patching.registry import register_own


def unet_backbone(
    name: str,
    encoder: Sequence[str],
    latent: str,
    decoder: Sequence[str],
    refinement: str,
    *,
    known_by: Sequence[str] = (),
) -> Backbone:
    """Returns the backbone of a U-net whose levels each halve the map.

    Args:
        name: the backbone's name.
        encoder: names of the encoder's levels, the largest map first.
        latent: name of the lowest level.
        decoder: names of the decoder's levels, in the order in which they run: the smallest map first.
        refinement: name of the blocks after the decoder, at full size.
        known_by: names of further children that the network must have.
    """
    deepest = 2 ** len(encoder)
    stages = [
        *(Stage(prefix, "encoder", 2**level) for level, prefix in enumerate(encoder)),
        Stage(latent, "latent", deepest),
        *(Stage(prefix, "decoder", deepest // 2 ** (level + 1)) for level, prefix in enumerate(decoder)),
        Stage(refinement, "refinement", 1),
    ]
    return Backbone(name, frozenset({*known_by, *(stage.prefix for stage in stages)}), tuple(stages), deepest)


register_own(
    unet_backbone(
        "ndr",
        ["block1", "block2", "block3"],
        "bottom",
        ["block_up3", "block_up2", "block_up1"],
        "refinement",
        # NDR-Restore's degradation network has the same names, with convolutions under them, but not this child.
        known_by=["res_connect1"],
    )
)
register_own(
    unet_backbone(
        "constyle",
        [f"Process_Module_l{level}" for level in (1, 2, 3)],
        "Process_Module_bottom",
        [f"Process_Module_r{level}" for level in (3, 2, 1)],
        "Finetune_Module",
    )
)
for _halvings in (1, 2, 3, 4):
    register_own(
        unet_backbone(
            "monai" if _halvings == 3 else f"monai-{_halvings + 1}",
            [f"encoder_levels.{level}" for level in range(_halvings)],
            "latent",
            [f"decoder_levels.{level}" for level in range(_halvings)],
            "refinement",
        )
    )

# An encoder for each of two images, and one decoder for both.
_TEXT_IF = tuple(
    Stage(f"encoder_{image}.encoder_level{level}", "latent" if level == 4 else "encoder", 2 ** (level - 1))
    for image in "AB"
    for level in (1, 2, 3, 4)
)
_FUSED = (
    Stage("cross_attention", "latent", 8),
    Stage("decoder_level4", "latent", 8),
    Stage("decoder_level3", "decoder", 4),
    Stage("decoder_level2", "decoder", 2),
    Stage("decoder_level1", "decoder", 1),
    Stage("refinement", "refinement", 1),
)
register_own(
    Backbone("textif", frozenset(stage.prefix for stage in _TEXT_IF + _FUSED), _TEXT_IF + _FUSED, multiple_of=8)
)
