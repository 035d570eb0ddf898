"""The user's own pairs, in two folders of degraded and clean images."""

from __future__ import annotations

from pathlib import Path

from .benchmarks.files import PairedFiles, read_grey, read_rgb, search_of_two
from .decode import Channels

PAIRS = "pairs"
"""The degradation's name for pairs of an unknown one."""


def paired_folders(degraded: Path, clean: Path, channels: Channels = 3) -> PairedFiles:
    """Pairs the images of two flat folders by their names without endings.

    Args:
        degraded: folder of the degraded images.
        clean: folder of the clean images.
        channels: 3 for RGB or 1 for grey; all images are converted.

    Raises:
        DataError: an image has no partner, or a folder has no images.
    """
    read = read_grey if channels == 1 else read_rgb
    return search_of_two("the set of pairs", degraded, clean, PAIRS, read).found({})
