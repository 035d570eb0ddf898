"""What is evaluated: pairs of files, and clean images that are degraded here."""

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
"""Name -> function of the folder and whether the published number of pairs must be there. WeatherBench, which states
no layout, is two folders: see ``paired_folders``."""


@dataclass(frozen=True)
class Case:
    """One degraded image to restore.

    Attributes:
        name: of the image.
        degradation: ``"rain"``, ``"noise25"``, ...
        clean: reads the clean image, (C, H, W) float32 in [0, 1].
        stored: reads the degraded image.
        made: makes it of the clean one, before that is cropped. Without either, it is noise by the protocol's rule.
    """

    name: str
    degradation: str
    clean: Callable[[], Tensor]
    stored: Callable[[], Tensor] | None = None
    made: Callable[[Tensor], Tensor] | None = None

    @property
    def is_noise(self) -> bool:
        """Whether the protocol makes the degraded image."""
        return self.stored is None and self.made is None

    def __str__(self) -> str:
        return f"{self.name} ({self.degradation})"


def benchmark_files(name: str, root: Path, *, whole: bool = True) -> PairedFiles:
    """The test pairs of a benchmark.

    Args:
        name: of ``BENCHMARKS``.
        root: its folder.
        whole: insist on the published number of pairs.

    Raises:
        ConfigError: for an unknown name.
        DataError: what is missing, left over, or of another number.
    """
    try:
        found = BENCHMARKS[name]
    except KeyError:
        raise ConfigError(f"no benchmark is called {name!r}; there are: {', '.join(BENCHMARKS)}") from None
    return found(root, whole)


def file_cases(files: PairedFiles) -> list[Case]:
    """A case for each pair; for a clean image without a degraded one, noise by the protocol's rule."""
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
    """Every clean image with every degradation; noise is by the protocol's rule, all else by ``degrade``.

    Args:
        images: see ``exda_primitives.workbench.data.open_images``.
        degradations: names, see ``exda_primitives.workbench.data.degrade``.
        seed: of what is degraded by ``degrade``; each image draws its own numbers of it.

    Raises:
        ConfigError: for no or an unknown degradation.
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
