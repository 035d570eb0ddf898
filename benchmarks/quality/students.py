"""Formats differences by seed: Student's interval over seeds, and the smallest effect that this many seeds detect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims.verdicts import gain, visible
from exda_primitives.workbench.shared.results import Interval

from .differences import Group

Scores = Mapping[str, Mapping[str, Any]]
"""Degradation -> ``psnr`` and ``ssim`` of each photograph."""


def student(differences: Sequence[float]) -> Interval:
    """Returns the mean with Student's interval, which is infinite for a single difference."""
    low, mean, high, _ = gain(differences)
    return Interval(low, mean, high)


def with_interval(differences: Sequence[float], digits: int = 3) -> str:
    """Formats the mean with its interval: ``+0.123 [+0.011, +0.234]``; a single difference has no interval."""
    low, mean, high = student(differences)
    if math.isinf(high):
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def visible_effect(differences: Sequence[float]) -> str:
    """Formats the smallest effect that the seeds would detect, in dB without a sign; ``-`` for a single difference."""
    effect = visible(differences)
    return "-" if math.isinf(effect) else f"{effect:.3f}"


def mean_of(scores: Scores, metric: str = "psnr") -> float:
    """Returns the mean of a metric over degradations and photographs."""
    return float(np.mean([np.mean(each[metric]) for each in scores.values()]))


def curve(there: Sequence[Group]) -> list[list[str]]:
    """Returns table rows of differences in PSNR at each mark and at the end; no rows without marks.

    Args:
        there: groups with runs, one column each; the first column has the steps.
    """
    marks = dict.fromkeys(mark for group in there for run in group.runs.values() for mark in run.get("curve", {}))
    rows = []
    for mark in marks:
        cells = []
        for group in there:
            both = [
                (run["curve"], group.hosts[seed]["curve"])
                for seed, run in group.runs.items()
                if all(mark in one.get("curve", {}) for one in (run, group.hosts[seed]))
            ]
            gained = [mean_of(ours[mark]) - mean_of(theirs[mark]) for ours, theirs in both]
            cells.append(with_interval(gained) if gained else "-")
        rows.append([f"{int(mark):,}", *cells])
    if rows:
        steps = next(iter(there[0].runs.values()))["steps"]
        rows.append([f"{steps:,}", *(with_interval(group.by_seed("psnr")) for group in there)])
    return rows
