"""WeatherBench: rain, snow and haze made by machines in front of a camera."""

from __future__ import annotations

from pathlib import Path

from .files import PairedFiles, search_of_two
from .promptir import Split

_PAIRS = {"train": 41402, "test": 600}


def weatherbench_files(
    degraded: str | Path, clean: str | Path, split: Split = "test", *, whole: bool = True
) -> PairedFiles:
    """WeatherBench, from two flat folders in which the images of a pair have the same name.

    Its repository, guanqiyuan/WeatherBench, states no layout; its evaluation.py reads two flat folders and pairs them
    by name without ending.

    Args:
        degraded: folder.
        clean: folder.
        split: "train" or "test", which decides how many pairs there should be: 41,402 or 600.
        whole: insist on that number; without it, one kind of weather may be given alone.

    Returns:
        Pairs of ``weather``.

    Raises:
        DataError: which file is missing where, is left over, or how many there are.
    """
    search = search_of_two(f"WeatherBench ({split})", Path(degraded), Path(clean), "weather")
    return search.found({"weather": (_PAIRS[split],)} if whole else {})
