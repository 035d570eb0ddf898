"""Differences seed by seed in words: Student's interval over seeds, and the smallest effect that so many see."""

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
    """Mean with Student's interval, endless for a single one."""
    low, mean, high, _ = gain(differences)
    return Interval(low, mean, high)


def with_interval(differences: Sequence[float], digits: int = 3) -> str:
    """``+0.123 [+0.011, +0.234]``; of a single one, without an interval."""
    low, mean, high = student(differences)
    if math.isinf(high):
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def visible_effect(differences: Sequence[float]) -> str:
    """The smallest one, without a sign; ``-`` for a single difference."""
    effect = visible(differences)
    return "-" if math.isinf(effect) else f"{effect:.3f}"


def mean_of(scores: Scores, metric: str = "psnr") -> float:
    """Over degradations and photographs."""
    return float(np.mean([np.mean(each[metric]) for each in scores.values()]))


def curve(there: Sequence[Group]) -> list[list[str]]:
    """Rows of mean differences in PSNR at the marks and at the end, the steps first; none without marks.

    Args:
        there: groups with runs, a column each.
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
