"""Tables of how much differences between trainings scatter over seeds, and how many seeds a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from benchmarks.claims.verdicts import CONFIDENCE, POWER, pairs_for
from exda_primitives.workbench.shared.tables import markdown_table

from .differences import Group
from .students import mean_of

EFFECT = 0.2
"""True difference in dB that a comparison shall detect."""


def by_recipe(found: Sequence[Group]) -> list[str]:
    """Returns a table with one row per setting: standard deviations, and the seeds and hours needed for ``EFFECT``."""
    rows = []
    for group in found:
        differences = group.by_seed("psnr")
        low, deviation, high = deviation_of(differences)
        hosts = deviation_of([mean_of(run["scores"]) for run in group.hosts.values()])[1]
        runs = [*group.runs.values(), *group.hosts.values()]
        hours = sum(leg["seconds"] for run in runs for leg in run["legs"]) / 3600 / len(group.runs)
        seeds = pairs_for(EFFECT, deviation)
        rows.append(
            [
                group.what,
                str(len(differences)),
                f"{group.mean('psnr'):.3f}",
                f"{hosts:.3f}",
                f"{deviation:.3f} [{low:.3f}, {high:.3f}]",
                str(seeds),
                f"{seeds * hours:.1f}",
            ]
        )
    how = (
        f'Standard deviation over seeds of the difference in PSNR between "{found[0].arm}" and the host of the same '
        f"seed, with its {CONFIDENCE:.0%} interval; and the number of seeds that detect a true difference of {EFFECT} "
        f"dB in {POWER:.0%} of cases, with the hours that both arms take for them."
    )
    head = ["recipe", "seeds", "PSNR (dB)", "host, deviation", "difference, deviation", "seeds needed", "hours"]
    return [how, "", *markdown_table(head, rows), ""]


def by_degradation(found: Sequence[Group]) -> list[str]:
    """Returns a table of the standard deviation of each degradation's difference, to show which scores are unsteady."""
    rows = [
        [name, *(f"{deviation_of(group.by_seed('psnr', [name]))[1]:.3f}" for group in found)]
        for name in found[0].degradations
    ]
    return [*markdown_table(["difference, deviation (dB)", *(group.what for group in found)], rows), ""]


def by_photographs(found: Sequence[Group]) -> list[str]:
    """Returns a table of the standard deviations with fewer photographs: every one, every second, fourth, eighth."""
    total = len(next(iter(found[0].runs.values()))["scores"][found[0].degradations[0]]["psnr"])
    rows = []
    for every in (1, 2, 4, 8):
        if total // every:
            fewer = [deviation_of(group.by_seed("psnr", every=every))[1] for group in found]
            rows.append([str(-(-total // every)), *(f"{each:.3f}" for each in fewer)])
    return [*markdown_table(["photographs", *(group.what for group in found)], rows), ""]


def deviation_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower bound, estimate and upper bound of the standard deviation of normal values."""
    n = len(values)
    # (n - 1) s^2 / sigma^2 has a chi-squared distribution with n - 1 degrees of freedom.
    deviation = float(np.std(values, ddof=1))
    high, low = (
        math.sqrt((n - 1) / float(chi2.ppf(part, n - 1))) for part in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return low * deviation, deviation, high * deviation
