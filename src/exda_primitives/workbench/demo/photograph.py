"""The photograph that the demo degrades and restores."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def photograph() -> Tensor:
    """Reads the kingfisher, (1, 3, 512, 512) float32 in [0, 1]; ``data/CREDITS.md`` names author and licence."""
    with (resources.files(__package__) / "data" / "kingfisher.png").open("rb") as file:
        pixels = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
