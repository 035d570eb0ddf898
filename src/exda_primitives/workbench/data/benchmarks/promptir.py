"""The benchmarks of three and five degradations, in the folders of PromptIR and AdaIR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from .files import PairedFiles, Search

Split = Literal["train", "test"]
Setting = Literal[3, 5]

NOISE = ("noise15", "noise25", "noise50")
"""AdaIR tests all three in both settings; tables of five degradations show only sigma 25."""

_REPEATS_OF_3 = dict.fromkeys(NOISE, 3) | {"rain": 120, "haze": 1}
REPEATS: Mapping[Setting, Mapping[str, int]] = {3: _REPEATS_OF_3, 5: _REPEATS_OF_3 | {"blur": 5, "low": 20}}
"""Setting -> degradation -> times that an epoch has each training image; the same in PromptIR, AdaIR and MoCE-IR."""

TEST_PAIRS: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(NOISE, (68,)),
    "rain": (100,),
    # SOTS outdoor circulates with 500 and with 492 hazy images.
    "haze": (500, 492),
    "blur": (1111,),
    "low": (15,),
}
TRAINING_PAIRS: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(NOISE, (5144,)),
    "rain": (200,),
    "haze": (72135,),
    "blur": (2103,),
    "low": (485,),
}


def chosen(numbers: Mapping[str, Sequence[int]], setting: Setting, whole: bool) -> dict[str, Sequence[int]]:
    """Returns the numbers of pairs to require: none unless ``whole``, and only those of the setting."""
    left_out = () if setting == 5 else ("blur", "low")
    return {name: counts for name, counts in numbers.items() if name not in left_out} if whole else {}


def scene(stem: str) -> Sequence[str]:
    """Returns the clean image's name in RESIDE: ``0025`` for ``0025_0.8_0.04`` (with airlight and beta)."""
    return (stem.partition("_")[0],)


def without_rain(stem: str) -> Sequence[str]:
    """Returns the clean image's possible names in Rain100L: ``norain-1`` for ``rain-1``; in some copies both agree."""
    return (f"no{stem}", stem)


def promptir_files(root: str | Path, split: Split = "test", setting: Setting = 3, *, whole: bool = True) -> PairedFiles:
    """Finds the pairs of the benchmark of three degradations (noise, rain, haze) or five (also blur and low light).

    Layout of "test", as in va1shn9v/PromptIR (INSTALL.md, utils/dataset_utils.py) and c-yn/AdaIR (test.py)::

        denoise/bsd68/           clean; 68, with sigma 15, 25 and 50
        derain/Rain100L/         input/X, target/X; 100
        dehaze/                  input/0001_0.8_0.2.jpg, target/0001.png; 500 or 492
        deblur/gopro/            input/X, target/X; 1,111
        enhance/lol/             input/X, target/X; 15

    and of "train", below ``data/Train``::

        Denoise/                 clean; WED and BSD400, 5,144
        Derain/                  rainy/rain-1.png, gt/norain-1.png; 200
        Dehaze/                  synthetic/part*/0025_0.8_0.04.jpg, original/0025.jpg; 72,135
        Deblur/                  blur/X, sharp/X; 2,103
        Enhance/                 low/X, gt/X; 485

    Those repositories read lists of names and skip all other files; here every file counts.

    Args:
        root: folder of the benchmark.
        split: "train" or "test".
        setting: 3 or 5 degradations.
        whole: require the published number of pairs.

    Returns:
        Pairs with the degradations ``noise15``, ``noise25``, ``noise50``, ``rain``, ``haze``; in setting 5 also
        ``blur`` and ``low``.

    Raises:
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    if split == "test":
        search = Search("PromptIR's test set", Path(root))
        search.clean("denoise/bsd68", NOISE)
        search.pair("derain/Rain100L/input", "derain/Rain100L/target", "rain", without_rain)
        search.pair("dehaze/input", "dehaze/target", "haze", scene)
        if setting == 5:
            search.pair("deblur/gopro/input", "deblur/gopro/target", "blur")
            search.pair("enhance/lol/input", "enhance/lol/target", "low")
        return search.found(chosen(TEST_PAIRS, setting, whole))
    search = Search("PromptIR's training set", Path(root))
    search.clean("Denoise", NOISE)
    search.pair("Derain/rainy", "Derain/gt", "rain", without_rain)
    search.pair("Dehaze/synthetic/*", "Dehaze/original", "haze", scene)
    if setting == 5:
        search.pair("Deblur/blur", "Deblur/sharp", "blur")
        search.pair("Enhance/low", "Enhance/gt", "low")
    return search.found(chosen(TRAINING_PAIRS, setting, whole))
