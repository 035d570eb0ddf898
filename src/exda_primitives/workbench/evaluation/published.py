"""The figures that authors of published checkpoints report, to compare with what is measured here.

Every figure was read in the table that its source names. It belongs to the checkpoint that the authors used. A file can
only be recognised as one of the same network, not as having the very same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .metrics import Score


@dataclass(frozen=True)
class Published:
    """One row of an authors' table.

    Attributes:
        architecture: name of the network.
        trained_on: what the weights were trained on.
        benchmarks: names of the benchmarks that hold the images of this row.
        protocol: name of the authors' protocol.
        source: repository and file that hold the table.
        scores: degradation -> PSNR and SSIM as printed.
        arguments: constructor arguments of the network that tell its variants apart.
    """

    architecture: str
    trained_on: str
    benchmarks: tuple[str, ...]
    protocol: str
    source: str
    scores: Mapping[str, Score]
    arguments: Mapping[str, Any] = field(default_factory=dict)


_SIZE = {"dim": 48, "num_blocks": [4, 6, 6, 8]}
_SMALL = _SIZE | {"dim": 32}
_THREE, _FIVE = ("promptir-3", "moce-ir-3"), ("promptir-5", "moce-ir-5")
_NAMES_OF_THREE = ("haze", "rain", "noise15", "noise25", "noise50")
_NAMES_OF_FIVE = ("haze", "rain", "noise25", "blur", "low")


def _row(names: tuple[str, ...], psnrs: tuple[float, ...], ssims: tuple[float, ...]) -> dict[str, Score]:
    return {name: Score(psnr, ssim) for name, psnr, ssim in zip(names, psnrs, ssims, strict=True)}


PUBLISHED = (
    Published(
        architecture="promptir",
        trained_on="three degradations",
        benchmarks=_THREE,
        protocol="promptir",
        source="va1shn9v/PromptIR: README.md, prompt-ir-results.png",
        scores=_row(_NAMES_OF_THREE, (30.58, 36.37, 33.98, 31.31, 28.06), (0.974, 0.972, 0.933, 0.888, 0.799)),
        arguments=_SIZE,
    ),
    Published(
        architecture="adair",
        trained_on="three degradations",
        benchmarks=_THREE,
        protocol="adair",
        source="c-yn/AdaIR: README.md, figs/adair3d.PNG",
        scores=_row(_NAMES_OF_THREE, (31.06, 38.64, 34.12, 31.45, 28.19), (0.980, 0.983, 0.935, 0.892, 0.802)),
        arguments=_SIZE,
    ),
    Published(
        architecture="adair",
        trained_on="five degradations",
        benchmarks=_FIVE,
        protocol="adair",
        source="c-yn/AdaIR: README.md, figs/adair5d.PNG",
        scores=_row(_NAMES_OF_FIVE, (30.53, 38.02, 31.35, 28.12, 23.00), (0.978, 0.981, 0.889, 0.858, 0.845)),
        arguments=_SIZE,
    ),
    Published(
        architecture="moceir",
        trained_on="three degradations (MoCE-IR-S)",
        benchmarks=_THREE,
        protocol="moce-ir",
        source="eduardzamfir/MoCE-IR: README.md, assets/results_aio_3.png",
        scores=_row(_NAMES_OF_THREE, (30.94, 38.22, 34.08, 31.42, 28.16), (0.979, 0.983, 0.933, 0.888, 0.798)),
        arguments=_SMALL,
    ),
    Published(
        architecture="moceir",
        trained_on="three degradations (MoCE-IR)",
        benchmarks=_THREE,
        protocol="moce-ir",
        source="eduardzamfir/MoCE-IR: README.md, assets/results_aio_3.png",
        scores=_row(_NAMES_OF_THREE, (31.34, 38.57, 34.11, 31.45, 28.18), (0.979, 0.984, 0.932, 0.888, 0.800)),
        arguments=_SIZE,
    ),
    Published(
        architecture="moceir",
        trained_on="five degradations (MoCE-IR-S)",
        benchmarks=_FIVE,
        protocol="moce-ir",
        source="eduardzamfir/MoCE-IR: README.md, assets/results_aio_5.png",
        scores=_row(_NAMES_OF_FIVE, (31.33, 37.21, 31.25, 28.90, 21.68), (0.978, 0.978, 0.884, 0.877, 0.851)),
        arguments=_SMALL,
    ),
    Published(
        architecture="moceir",
        trained_on="five degradations (MoCE-IR)",
        benchmarks=_FIVE,
        protocol="moce-ir",
        source="eduardzamfir/MoCE-IR: README.md, assets/results_aio_5.png",
        scores=_row(_NAMES_OF_FIVE, (30.48, 38.04, 31.34, 30.05, 23.00), (0.974, 0.982, 0.887, 0.899, 0.852)),
        arguments=_SIZE,
    ),
)


def published_for(architecture: str, arguments: Mapping[str, Any], benchmark: str | None) -> Published | None:
    """Returns the authors' row for a network on a benchmark, or None.

    Args:
        architecture: name of the network.
        arguments: its constructor's arguments, as found in a checkpoint.
        benchmark: name of the benchmark; None for the user's own images.

    Examples:
        >>> published_for("adair", {"dim": 48, "num_blocks": [4, 6, 6, 8]}, "promptir-5").scores["rain"]
        Score(psnr=38.02, ssim=0.981)
    """
    return next(
        (
            row
            for row in PUBLISHED
            if row.architecture == architecture
            and benchmark in row.benchmarks
            and all(arguments.get(name) == value for name, value in row.arguments.items())
        ),
        None,
    )
