"""Three and five degradations, in the folders of MoCE-IR."""

from __future__ import annotations

from pathlib import Path

from .files import PairedFiles, Search
from .promptir import NOISE, TEST_PAIRS, TRAINING_PAIRS, Setting, Split, chosen, scene, without_rain


def moceir_files(root: str | Path, split: Split = "test", setting: Setting = 3, *, whole: bool = True) -> PairedFiles:
    """Finds the images of ``promptir_files`` in MoCE-IR's folders, below its ``data_file_dir``.

    Layout, as in eduardzamfir/MoCE-IR (src/data/dataset_utils.py); "test"::

        denoising/cBSD68/original_png/       clean; 68, with sigma 15, 25 and 50
        deraining/Rain100L/                  rainy/rain-001.png, gt/norain-001.png; 100
        dehazing/SOTS/outdoor/               hazy/0001_0.8_0.2.jpg, gt/0001.png; 500 or 492
        deblurring/GoPro/test/               input/X, target/X; 1,111
        llie/LOLv1/Test/                     input/X, target/X; 15

    and "train"::

        denoising/WaterlooED/, denoising/BSD400/                clean; 5,144 together
        deraining/RainTrainL/                                   rainy, gt; 200
        dehazing/RESIDE/                                        part1 to part4, clear; 72,135
        deblurring/GoPro/crop/train/                            input_crops, target_crops; any number
        llie/LOLv1/Train/                                       input, target; 485

    MoCE-IR pairs files by their positions in two sorted lists and reads only one ending per folder; here files are
    paired by name, whatever their ending.

    Args:
        root: folder of the benchmark.
        split: "train" or "test".
        setting: 3 or 5 degradations.
        whole: require the published number of pairs.

    Returns:
        Pairs with the same degradations as from ``promptir_files``.

    Raises:
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    if split == "test":
        search = Search("MoCE-IR's test set", Path(root))
        search.clean("denoising/cBSD68/original_png", NOISE)
        search.pair("deraining/Rain100L/rainy", "deraining/Rain100L/gt", "rain", without_rain)
        search.pair("dehazing/SOTS/outdoor/hazy", "dehazing/SOTS/outdoor/gt", "haze", scene)
        if setting == 5:
            search.pair("deblurring/GoPro/test/input", "deblurring/GoPro/test/target", "blur")
            search.pair("llie/LOLv1/Test/input", "llie/LOLv1/Test/target", "low")
        return search.found(chosen(TEST_PAIRS, setting, whole))
    search = Search("MoCE-IR's training set", Path(root))
    search.clean("denoising/WaterlooED", NOISE)
    search.clean("denoising/BSD400", NOISE)
    search.pair("deraining/RainTrainL/rainy", "deraining/RainTrainL/gt", "rain", without_rain)
    search.pair("dehazing/RESIDE/part*", "dehazing/RESIDE/clear", "haze", scene)
    if setting == 5:
        crops = "deblurring/GoPro/crop/train"
        search.pair(f"{crops}/input_crops", f"{crops}/target_crops", "blur")
        search.pair("llie/LOLv1/Train/input", "llie/LOLv1/Train/target", "low")
    # The number of crops depends on how GoPro was cut.
    numbers = {name: counts for name, counts in TRAINING_PAIRS.items() if name != "blur"}
    return search.found(chosen(numbers, setting, whole))
