"""Arranges images in one, a row for each photograph, each image under its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CAPTION_HEIGHT = 64
"""Height of a caption's strip in pixels."""

FONT_SIZE = 44
"""Size of the captions in pixels: readable where a page shows the image at a third of its width."""

GAP = 8
"""Pixels between two images."""


def sheet(rows: Sequence[Mapping[str, Tensor]]) -> Image.Image:
    """Arranges images in rows.

    Args:
        rows: for each row, caption -> image (1, 3, H, W), clipped to [0, 1]; equal sizes within a row.

    Returns:
        An RGB image with a white background.
    """
    sizes = [next(iter(row.values())).shape[-2:] for row in rows]
    width = max((side + GAP) * len(row) - GAP for (_, side), row in zip(sizes, rows, strict=True))
    page = Image.new("RGB", (width, sum(height + CAPTION_HEIGHT for height, _ in sizes)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=FONT_SIZE)
    top = 0
    for (height, side), row in zip(sizes, rows, strict=True):
        for index, (caption, image) in enumerate(row.items()):
            left = index * (side + GAP)
            draw.text((left + side / 2, top + CAPTION_HEIGHT / 2), caption, fill="black", font=font, anchor="mm")
            page.paste(to_image(image), (left, top + CAPTION_HEIGHT))
        top += height + CAPTION_HEIGHT
    return page


def to_image(image: Tensor) -> Image.Image:
    """Converts (1, 3, H, W) in [0, 1] into an RGB image, rounded to 8 bits."""
    levels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.asarray(levels.permute(1, 2, 0).contiguous()))
