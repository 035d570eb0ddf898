"""Opens the pairs of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, cast

from ...errors import ConfigError
from ..data import Images, PairedFiles, PairedFileSet, PairedSet, open_images, paired_folders
from ..data.benchmarks import (
    allweather_files,
    cdd11_files,
    medical_files,
    moceir_files,
    promptir_files,
)
from ..data.decode import Channels
from ..data.images import SelectedImages
from .config import Benchmark, FoldersConfig, TrainConfig
from .stages import patches

Split = Literal["train", "test"]

BENCHMARKS: Mapping[Benchmark, Callable[..., PairedFiles]] = {
    "promptir-3": partial(promptir_files, setting=3),
    "promptir-5": partial(promptir_files, setting=5),
    "moce-ir-3": partial(moceir_files, setting=3),
    "moce-ir-5": partial(moceir_files, setting=5),
    "allweather": allweather_files,
    "cdd11": cdd11_files,
    "amir": lambda root, split, whole: medical_files(root, split),
}
"""Value of ``data.benchmark`` -> function that lists the benchmark's files."""


class Data(NamedTuple):
    """The pairs to train on, and whole images to validate on or None."""

    training: PairedSet | PairedFileSet
    validation: PairedSet | PairedFileSet | None


def open_data(config: TrainConfig, channels: int) -> Data:
    """Opens the data sets; images are read on access. The training set cuts the largest patches of the run.

    Args:
        config: configuration of the run; its seed is also that of the degradations.
        channels: channels of the network's images, 3 or 1.

    Raises:
        ConfigError: for an unknown degradation, and for one folder given as both degraded and clean.
        DataError: for a benchmark that is incomplete, and for images without a partner.
        ImageError: for a source that has no images or cannot be read.
    """
    data = config.data
    training = _opened(config, data.source, "train", channels)
    validation = None if data.validation is None else _opened(config, data.validation, "test", channels)
    if data.held_out is not None:
        training, validation = _divided(training, data.held_out)
    # The largest, so that a check of the set finds the images that are too small for a later stage.
    patch = max(patches(config).values())
    return Data(_paired(config, training, patch), None if validation is None else _paired(config, validation, None))


def _opened(config: TrainConfig, source: str | FoldersConfig, split: Split, channels: int) -> Images | PairedFiles:
    data = config.data
    if isinstance(source, FoldersConfig):
        return _of_two(source, "data.source" if split == "train" else "data.validation", channels)
    if data.benchmark is not None:
        return BENCHMARKS[data.benchmark](source, split, whole=data.whole)
    return open_images(source, cast(Channels, channels))


def _divided(source: Images | PairedFiles, held_out: int) -> tuple[Images | PairedFiles, Images | PairedFiles]:
    """Returns what is trained on, and what is held out: images (or pairs) evenly spread over the source."""
    there = len(source)
    if held_out >= there:
        raise ConfigError(
            f"data.held_out: found {held_out}, but the source has {there} {'image' if there == 1 else 'images'}: at "
            f"least one must be left to train on."
        )
    # The middle of each of as many equal parts.
    held = [(2 * part + 1) * there // (2 * held_out) for part in range(held_out)]
    return _selected(source, sorted({*range(there)} - {*held})), _selected(source, held)


def _selected(source: Images | PairedFiles, indices: Sequence[int]) -> Images | PairedFiles:
    if isinstance(source, Images):
        return SelectedImages(source, indices)
    return replace(source, pairs=tuple(source.pairs[index] for index in indices))


def _paired(config: TrainConfig, source: Images | PairedFiles, patch: int | None) -> PairedSet | PairedFileSet:
    data, seed = config.data, config.recipe.seed
    # Validation (no patch) has each pair once.
    repeats = None if patch is None else data.repeats
    if isinstance(source, Images):
        return PairedSet(source, data.degradations, seed=seed, patch=patch, repeats=repeats)
    return PairedFileSet(source, seed=seed, patch=patch, repeats=repeats)


def _of_two(source: FoldersConfig, key: str, channels: int) -> PairedFiles:
    if os.path.realpath(source.degraded) == os.path.realpath(source.clean):
        raise ConfigError(f"{key}: {source.clean} is given as both, degraded and clean.")
    return paired_folders(Path(source.degraded), Path(source.clean), cast(Channels, channels))
