"""CDD-11: eleven degradations of the same images."""

from __future__ import annotations

from pathlib import Path

from ..degradations import CDD11
from .files import PairedFiles, Search
from .promptir import Split

_IMAGES = {"train": 1183, "test": 200}


def cdd11_files(root: str | Path, split: Split = "test", *, whole: bool = True) -> PairedFiles:
    """Finds the pairs of CDD-11: low light, haze, rain, snow and seven compositions of them.

    Layout, as in gy65896/OneRestore (README.md) and eduardzamfir/MoCE-IR, which calls the root ``cdd11``::

        train/ or CDD-11_train/      clear/000001.png, low/000001.png, haze/000001.png, ...; 1,183 each
        test/ or CDD-11_test/        the same folders; 200 each

    Args:
        root: folder of the benchmark.
        split: "train" or "test".
        whole: require the published number of pairs, 13,013 or 2,200.

    Returns:
        Pairs of all eleven degradations, each named as its folder.

    Raises:
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    search = Search(f"CDD-11 ({split})", Path(root))
    folder = next((name for name in (split, f"CDD-11_{split}") if (Path(root) / name).is_dir()), split)
    search.report_unexpected(folder, ("clear", *CDD11))
    for name in CDD11:
        search.pair(f"{folder}/{name}", f"{folder}/clear", name)
    return search.found(dict.fromkeys(CDD11, (_IMAGES[split],)) if whole else {})
