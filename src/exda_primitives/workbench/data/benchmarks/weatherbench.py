"""WeatherBench: real photographs of rain, snow and haze that machines made in front of the camera."""

from __future__ import annotations

from pathlib import Path

from .files import PairedFiles, search_of_two
from .promptir import Split

_PAIRS = {"train": 41402, "test": 600}


def weatherbench_files(
    degraded: str | Path, clean: str | Path, split: Split = "test", *, whole: bool = True
) -> PairedFiles:
    """Finds the pairs of WeatherBench in two flat folders, where the images of a pair have the same name.

    Its repository, guanqiyuan/WeatherBench, states no layout; its evaluation.py reads two flat folders and pairs files
    by their names without endings.

    Args:
        degraded: folder of the degraded images.
        clean: folder of the clean images.
        split: "train" or "test"; decides the expected number of pairs, 41,402 or 600.
        whole: require that number; False allows one kind of weather alone.

    Returns:
        Pairs with the degradation ``weather``.

    Raises:
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    search = search_of_two(f"WeatherBench ({split})", Path(degraded), Path(clean), "weather")
    return search.found({"weather": (_PAIRS[split],)} if whole else {})
