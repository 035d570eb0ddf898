"""Validates during training: restores whole images, measures their PSNR, and shows a few."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import memory
from ...errors import DivergedError
from ...patching.backbones import MULTIPLE, known_multiple
from ..shared.inference import inferring
from ..shared.metrics import psnr
from ..shared.padding import pad
from .config import RecipeConfig
from .order import PairsByEpoch
from .step import autocast
from .validation_images import ValidationImages

PROTOCOL = "PSNR over all channels, range 1, clipped to [0, 1], not rounded, mean over the pairs"


class Validated(NamedTuple):
    """What a validation found.

    Attributes:
        psnr: mean PSNR in dB, see ``PROTOCOL``.
        sheet: a few of the images, (height, width, 3) uint8, see ``ValidationImages``; None if none are to be shown.
    """

    psnr: float
    sheet: Tensor | None


def validate(fabric: Any, net: nn.Module, pairs: PairsByEpoch, recipe: RecipeConfig) -> Validated:
    """Restores all pairs and measures the PSNR; the processes share the pairs, and the network is unchanged.

    Args:
        fabric: this process's Fabric.
        net: the network, without a wrapper.
        pairs: whole images of any size; always those of epoch 0, so that validations compare.
        recipe: provides the precision, and the number of images to show.

    Raises:
        DivergedError: for an output that is not finite, in all processes at once.
    """
    multiple = known_multiple(net) or MULTIPLE
    pairs.set_epoch(0)
    shown = ValidationImages(fabric, len(pairs), recipe.validation_images)
    # Sum of PSNR, and number of outputs that are not finite: summed over the processes at the end, so that all of them
    # raise together.
    sums = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    with inferring(net):
        for index in range(fabric.global_rank, len(pairs), fabric.world_size):
            degraded, clean, *_ = pairs[index]
            height, width = clean.shape[-2:]
            with autocast(fabric.device, recipe):
                restored = net(pad(degraded, multiple)[None].to(fabric.device))
            restored = restored[0, :, :height, :width].to(clean.dtype)
            shown.add(index, degraded, restored, clean)
            if bool(restored.isfinite().all()):
                sums[0] += psnr(restored.clamp(0, 1), clean.to(fabric.device))
            else:
                sums[1] += 1
            memory.release()
    total, broken = fabric.all_reduce(sums, reduce_op="sum").tolist()
    if broken:
        raise DivergedError(
            f"validation: of {len(pairs)} restored images {int(broken)} hold NaN or infinity; there is no PSNR. "
            f"Lower recipe.learning_rate, or take precision 32-true."
        )
    return Validated(total / len(pairs), shown.sheet())
