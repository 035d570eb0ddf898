"""Pairs of one's own: two folders, degraded and clean."""

from __future__ import annotations

from pathlib import Path

from .benchmarks.files import PairedFiles, read_grey, read_rgb, search_of_two
from .decode import Channels

PAIRS = "pairs"
"""The degradation of pairs that say nothing of it."""


def paired_folders(degraded: Path, clean: Path, channels: Channels = 3) -> PairedFiles:
    """Pairs the images of two flat folders by their names without endings.

    Args:
        degraded: folder.
        clean: folder.
        channels: 3 for RGB or 1 for grey, into which all images are converted.

    Raises:
        DataError: for images without a partner, and for folders without any.
    """
    read = read_grey if channels == 1 else read_rgb
    return search_of_two("the set of pairs", degraded, clean, PAIRS, read).found({})
