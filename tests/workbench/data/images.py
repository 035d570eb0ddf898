"""Random images and image files for the tests of data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeded(99))


def write_image(path: Path, height: int = 6, width: int = 5, mode: str = "RGB", seed: int = 0) -> Path:
    """Writes an image of random bytes, and its folder if it is missing."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_images(root: Path, names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        write_image(root / name, seed=seed)
