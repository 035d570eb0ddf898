"""Padding by reflection to sizes that a network takes."""

from __future__ import annotations

import torch
from torch import Tensor

MINIMUM = 16
"""Side below which an image is padded further, in pixels: AMIR's U-net needs more than 8."""


def padded_side(side: int, multiple: int) -> int:
    """The smallest multiple that is neither below ``side`` nor below ``MINIMUM``, in pixels."""
    return -(-max(side, MINIMUM) // multiple) * multiple


def pad(image: Tensor, multiple: int) -> Tensor:
    """Continues an image to the right and below by reflection without repeating the edge, as often as needed.

    Args:
        image: (..., H, W), H and W at least 1.
        multiple: what the padded sides are divisible by.

    Returns:
        (..., ``padded_side`` of H, of W); ``image`` itself where nothing is missing. Crop with ``[..., :H, :W]``.
    """
    for dim in (-2, -1):
        side = image.shape[dim]
        wanted = padded_side(side, multiple)
        if wanted > side:
            image = image.index_select(dim, _reflected(side, wanted).to(image.device))
    return image


def _reflected(side: int, wanted: int) -> Tensor:
    """0, 1, ..., side - 1, side - 2, ..., 1, 0, 1, ...: ``wanted`` entries."""
    # A single row or column has nothing to turn back to: it repeats.
    period = max(2 * (side - 1), 1)
    phase = torch.arange(wanted) % period
    return torch.minimum(phase, period - phase) if side > 1 else phase
