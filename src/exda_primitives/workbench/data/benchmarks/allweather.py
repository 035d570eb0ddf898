"""AllWeather: snow, rain with haze, and raindrops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .files import PairedFiles, Search
from .promptir import Split

_TESTS = {
    "Snow100K-L": ("synthetic", "snow-large", 16801),
    "Snow100K-S": ("synthetic", "snow-small", 16611),
    "Test1": ("input", "rain-haze", 750),
    "RainDrop": ("input", "raindrop", 58),
}
_TRAINING_PAIRS = 18069


def _targets(stem: str) -> Sequence[str]:
    """Returns the clean image's possible names: the same name, or that of Outdoor-Rain or of RainDrop."""
    return (stem, re.sub(r"_s\d+_a\d+$", "", stem), re.sub(r"_rain$", "_clean", stem))


def allweather_files(root: str | Path, split: Split = "test", *, whole: bool = True) -> PairedFiles:
    """Finds the pairs of AllWeather, which TransWeather compiled from Snow100K, Outdoor-Rain and RainDrop.

    Layout, as in sunshangquan/Histoformer (Allweather/Options/Allweather_Histoformer.yml)::

        input/X, gt/X                                   training; 18,069
        test/Snow100K-L/, test/Snow100K-S/              synthetic/X, gt/X; 16,801 and 16,611
        test/Test1/, test/RainDrop/                     input/X, gt/X; 750 and 58

    The two files of a pair have the same name, or names as in Outdoor-Rain (``im_0001_s80_a04``, ``im_0001``) or
    RainDrop (``0_rain``, ``0_clean``).

    Args:
        root: the folder ``allweather``.
        split: "train" or "test".
        whole: require the published number of pairs.

    Returns:
        Pairs with the degradation ``weather`` for training; ``snow-large``, ``snow-small``, ``rain-haze`` and
        ``raindrop`` for testing.

    Raises:
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    search = Search(f"AllWeather ({split})", Path(root))
    if split == "train":
        search.pair("input", "gt", "weather", _targets)
        return search.found({"weather": (_TRAINING_PAIRS,)} if whole else {})
    for folder, (degraded, degradation, _) in _TESTS.items():
        search.pair(f"test/{folder}/{degraded}", f"test/{folder}/gt", degradation, _targets)
    return search.found({degradation: (number,) for _, degradation, number in _TESTS.values()} if whole else {})
