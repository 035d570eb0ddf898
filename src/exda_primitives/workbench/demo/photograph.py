"""The photograph that the demo degrades and restores."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...errors import ImageError

SMALLEST = 64
"""Shortest side in pixels of a user's image."""


LONGEST = 1024
"""Longest side in pixels of a user's image in the demo: larger ones are reduced, so that it takes seconds."""

MULTIPLE = 8
"""Number that the sides have to be divisible by: the image is cropped to it."""


def photograph() -> Tensor:
    """Reads the kingfisher, (1, 3, 512, 512) float32 in [0, 1]; ``data/CREDITS.md`` names author and licence."""
    with (resources.files(__package__) / "data" / "kingfisher.png").open("rb") as file:
        return _tensor(Image.open(file))


def photograph_of(path: Path) -> Tensor:
    """Reads an image of the user's, (1, 3, H, W) float32 in [0, 1], upright, at most ``LONGEST`` pixels long.

    Raises:
        ImageError: for a file that is no image, or one too small.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} is no image that can be read: {error}") from None
    image.thumbnail((LONGEST, LONGEST))
    width, height = (side // MULTIPLE * MULTIPLE for side in image.size)
    if min(width, height) < SMALLEST:
        raise ImageError(f"{path}: {image.width} x {image.height} pixels; expected at least {SMALLEST} each way")
    return _tensor(image.crop((0, 0, width, height)))


def _tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
