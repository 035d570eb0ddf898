"""Crops images around their centre."""

from __future__ import annotations

from torch import Tensor


def centre(image: Tensor, side: int) -> Tensor:
    """Returns the centre of an image (..., H, W), a view: height and width at most ``side`` pixels."""
    top, left = (max(length - side, 0) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]
