"""The cases to evaluate: pairs of files, and clean images that are degraded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from ...errors import ConfigError
from ..data.benchmarks import (
    PairedFiles,
    allweather_files,
    cdd11_files,
    medical_files,
    moceir_files,
    promptir_files,
)
from ..data.degradations import degradation_named, degrade
from ..data.images import Images
from .noise import is_noise

BENCHMARKS: Mapping[str, Callable[[Path, bool], PairedFiles]] = {
    "promptir-3": lambda root, whole: promptir_files(root, setting=3, whole=whole),
    "promptir-5": lambda root, whole: promptir_files(root, setting=5, whole=whole),
    "moce-ir-3": lambda root, whole: moceir_files(root, setting=3, whole=whole),
    "moce-ir-5": lambda root, whole: moceir_files(root, setting=5, whole=whole),
    "cdd11": lambda root, whole: cdd11_files(root, whole=whole),
    "allweather": lambda root, whole: allweather_files(root, whole=whole),
    "amir": lambda root, whole: medical_files(root),
}
"""Name -> function of the folder, and of whether the published number of pairs is required. WeatherBench states no
layout: use its two folders by ``paired_folders``."""


@dataclass(frozen=True)
class Case:
    """One degraded image to restore.

    If it is neither stored nor made, it is the clean image with noise by the protocol's rule.

    Attributes:
        name: name of the image.
        degradation: ``"rain"``, ``"noise25"``, ...
        clean: reads the clean image, (C, H, W) float32 in [0, 1].
        stored: reads the degraded image, in the same form; None if there is no file of it.
        made: makes the degraded image from the clean one, before cropping; None if it is not made so.
    """

    name: str
    degradation: str
    clean: Callable[[], Tensor]
    stored: Callable[[], Tensor] | None = None
    made: Callable[[Tensor], Tensor] | None = None

    @property
    def is_noise(self) -> bool:
        """Whether the protocol makes the degraded image, by adding noise."""
        return self.stored is None and self.made is None

    def __str__(self) -> str:
        return f"{self.name} ({self.degradation})"


def benchmark_files(name: str, root: Path, *, whole: bool = True) -> PairedFiles:
    """Finds the test pairs of a benchmark.

    Args:
        name: a key of ``BENCHMARKS``.
        root: folder of the benchmark.
        whole: require the published number of pairs.

    Raises:
        ConfigError: there is no benchmark of that name.
        DataError: files are missing or left over, or their number is wrong; the message lists which.
    """
    try:
        found = BENCHMARKS[name]
    except KeyError:
        raise ConfigError(f"no benchmark is called {name!r}; there are: {', '.join(BENCHMARKS)}") from None
    return found(root, whole)


def file_cases(files: PairedFiles) -> list[Case]:
    """Returns a case for each pair; a clean image without a degraded one gets noise by the protocol's rule."""
    return [
        Case(
            name=pair.name,
            degradation=pair.degradation,
            clean=partial(files.read, pair.clean, pair.degradation),
            stored=partial(files.read, pair.degraded, pair.degradation) if pair.degraded else None,
        )
        for pair in files.pairs
    ]


def clean_cases(images: Images, degradations: Sequence[str], seed: int) -> list[Case]:
    """Returns a case for every clean image and degradation; noise follows the protocol's rule, the rest ``degrade``.

    Args:
        images: the clean images, see ``exda_primitives.workbench.data.open_images``.
        degradations: names, see ``exda_primitives.workbench.data.degrade``.
        seed: seed for ``degrade``; each image derives its own seed from it.

    Raises:
        ConfigError: no degradation is given, or one is unknown.
    """
    if not degradations:
        raise ConfigError("no degradation is named")
    cases = []
    for degradation in dict.fromkeys(degradations):
        noise = is_noise(degradation)
        if not noise:
            degradation_named(degradation)
        for index, name in enumerate(images.names):
            mixed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            made = None if noise else partial(degrade, name=degradation, seed=mixed)
            cases.append(Case(name, degradation, partial(images.__getitem__, index), made=made))
    return cases
