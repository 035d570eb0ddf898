"""Arranges the demo's images side by side, each under its caption."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CAPTION_HEIGHT = 34
"""Height of the captions' strip in pixels."""

GAP = 8
"""Pixels between two images."""


def sheet(images: Mapping[str, Tensor]) -> Image.Image:
    """Arranges images of equal size in one row.

    Args:
        images: caption -> image (1, 3, H, W), clipped to [0, 1].

    Returns:
        An RGB image with a white background.
    """
    height, width = next(iter(images.values())).shape[-2:]
    total = (width + GAP) * len(images) - GAP
    page = Image.new("RGB", (total, height + CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=20)
    for index, (caption, image) in enumerate(images.items()):
        left = index * (width + GAP)
        draw.text((left + width / 2, CAPTION_HEIGHT / 2), caption, fill="black", font=font, anchor="mm")
        page.paste(to_image(image), (left, CAPTION_HEIGHT))
    return page


def to_image(image: Tensor) -> Image.Image:
    """Converts (1, 3, H, W) in [0, 1] into an RGB image, rounded to 8 bits."""
    levels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.asarray(levels.permute(1, 2, 0).contiguous()))
