"""The table of before and after, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..evaluation.protocols import PLAIN
from ..shared.results import Result, difference
from ..shared.tables import markdown_page, markdown_table, provenance, terminal_table
from .methods import METHODS

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("degradation", "images", "degraded (dB / SSIM)", "before", "after", "after - before (dB)")

LEAST = 3
"""Fewest images for an interval."""


def markdown(result: Result) -> str:
    """Returns a Markdown page."""
    config = result["config"]
    return markdown_page(
        "Before and after",
        markdown_table(HEAD, rows_of(result)),
        *sentences(result),
        f"Trained: {METHODS[config['asked']['method']].about}, {result['trained_parameters']:,} parameters, "
        f"{result['bytes']:,} bytes; {config['chosen']['steps']:,} steps with learning rate "
        f"{config['chosen']['learning_rate']:g}.",
        f"{PLAIN.note}. The images are some that were not trained on, whole.",
        provenance(result),
    )


def printed(result: Result) -> Table:
    """Returns a table for the terminal."""
    return terminal_table(HEAD, rows_of(result))


def rows_of(result: Result) -> list[list[str]]:
    """Returns a row for each degradation."""
    return [
        [
            name,
            str(len(runs)),
            *(f"{_mean(runs, f'{of}_psnr'):.2f} / {_mean(runs, f'{of}_ssim'):.4f}" for of in _COLUMNS),
            _difference(runs),
        ]
        for name, runs in _by_degradation(result).items()
    ]


_COLUMNS = ("degraded", "before", "after")


def sentences(result: Result) -> list[str]:
    """Returns what the figures say and what they do not, a sentence or two each."""
    lines = []
    for name, runs in _by_degradation(result).items():
        gain = _mean(runs, "after_psnr") - _mean(runs, "before_psnr")
        better = sum(run["after_psnr"] > run["before_psnr"] for run in runs)
        counted = f"{name}: better on {better} of {len(runs)} images"
        if len(runs) < LEAST:
            lines.append(f"{counted}; too few to conclude from.")
            continue
        low, _, high = _interval(runs)
        how = "it restores better" if low > 0 else "it restores worse" if high < 0 else "no difference can be told"
        lines.append(f"{counted}: {how} ({gain:+.2f} dB, 95% interval over the images {low:+.2f} to {high:+.2f}).")
    lines.append(
        "What the network could do before is not measured here: with the file loaded it may do much worse at that. "
        "Without the file it is as it was."
    )
    return lines


def _difference(runs: Sequence[Any]) -> str:
    gain = f"{_mean(runs, 'after_psnr') - _mean(runs, 'before_psnr'):+.2f}"
    if len(runs) < LEAST:
        return gain
    low, _, high = _interval(runs)
    return f"{gain} ({low:+.2f} to {high:+.2f})"


def _interval(runs: Sequence[Any]) -> tuple[float, float, float]:
    return difference([run["after_psnr"] for run in runs], [run["before_psnr"] for run in runs])


def _mean(runs: Sequence[Any], key: str) -> float:
    return fmean(run[key] for run in runs)


def _by_degradation(result: Result) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for run in result["runs"]:
        groups.setdefault(run["degradation"], []).append(run)
    return groups
