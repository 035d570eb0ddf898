"""The demo's pictures side by side, each under its caption."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CAPTION_HEIGHT = 34
GAP = 8


def sheet(pictures: Mapping[str, Tensor]) -> Image.Image:
    """One row of equally large pictures.

    Args:
        pictures: caption -> (1, 3, H, W) in [0, 1], clipped.

    Returns:
        An RGB image with a white ground.
    """
    height, width = next(iter(pictures.values())).shape[-2:]
    total = (width + GAP) * len(pictures) - GAP
    page = Image.new("RGB", (total, height + CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=20)
    for index, (caption, picture) in enumerate(pictures.items()):
        left = index * (width + GAP)
        draw.text((left + width / 2, CAPTION_HEIGHT / 2), caption, fill="black", font=font, anchor="mm")
        page.paste(to_image(picture), (left, CAPTION_HEIGHT))
    return page


def to_image(picture: Tensor) -> Image.Image:
    """(1, 3, H, W) in [0, 1] -> RGB, rounded to 8 bits."""
    levels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.asarray(levels.permute(1, 2, 0).contiguous()))
