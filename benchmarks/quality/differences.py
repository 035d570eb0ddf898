"""Differences of arms to the host, with intervals over seeds and photographs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exda_primitives.errors import ExDAError
from exda_primitives.workbench.shared.results import Interval, Result

from .forms import BASE, HOST

DRAWS = 10_000
"""Number of bootstrap samples."""
ENOUGH_SEEDS = 3
"""With fewer seeds, nothing is concluded: their interval says too little about other seeds."""

Scores = Mapping[str, Mapping[str, list[float]]]
"""Degradation -> ``psnr`` and ``ssim`` of each photograph."""


@dataclass(frozen=True)
class Group:
    """The runs of one arm in one setting and budget, and the hosts that they are compared with.

    Attributes:
        setting: name of the setting.
        what: what the setting changes.
        budget: ``"steps"`` or ``"time"``.
        arm: name of the arm.
        runs: seed -> run, of those runs that did not diverge and have a host of the same seed.
        hosts: seed -> host's run, for the same seeds.
        diverged: number of runs that diverged.
    """

    setting: str
    what: str
    budget: str
    arm: str
    runs: Mapping[int, Mapping[str, Any]]
    hosts: Mapping[int, Mapping[str, Any]]
    diverged: int

    @property
    def degradations(self) -> tuple[str, ...]:
        """The degradations, in the order of the result; empty without a run."""
        return tuple(next(iter(self.runs.values()))["scores"]) if self.runs else ()

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric over seeds, degradations and photographs."""
        return float(np.mean([np.mean(_photographs(run["scores"], metric)) for run in self.runs.values()]))

    def difference(self, metric: str, degradations: Iterable[str] = ()) -> Interval:
        """Returns the mean difference to the hosts of the same seeds, with its bootstrap interval.

        Args:
            metric: ``"psnr"`` or ``"ssim"``.
            degradations: which degradations; all by default.

        Raises:
            ExDAError: without a run.
        """
        return interval(self._paired(metric, tuple(degradations)))

    def by_seed(self, metric: str, degradations: Iterable[str] = (), every: int = 1) -> list[float]:
        """Returns for each seed the mean difference to its host.

        Args:
            metric: ``"psnr"`` or ``"ssim"``.
            degradations: which degradations; all by default.
            every: uses every n-th photograph, from the first on.
        """
        return [float(each) for each in self._paired(metric, tuple(degradations))[:, ::every].mean(axis=1)]

    @property
    def verdict(self) -> str:
        """What the interval of the PSNR's difference allows to conclude."""
        if len(self.runs) < ENOUGH_SEEDS:
            return f"too few seeds ({len(self.runs)})"
        found = self.difference("psnr")
        return "better" if found.low > 0 else "worse" if found.high < 0 else "not enough to tell"

    def _paired(self, metric: str, degradations: tuple[str, ...]) -> NDArray[np.float64]:
        return np.array(
            [
                _photographs(self.runs[seed]["scores"], metric, degradations)
                - _photographs(self.hosts[seed]["scores"], metric, degradations)
                for seed in sorted(self.runs)
            ]
        )


def groups(result: Result, host: str = HOST) -> list[Group]:
    """Groups a result's runs by setting, budget and arm, in the order of the runs and without the hosts' own groups.

    Args:
        result: a result with its runs.
        host: the arm that all others are compared with.
    """
    done: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for run in result["runs"]:
        done.setdefault((run["setting"], run["budget"], run["arm"]), {})[run["seed"]] = run
    found = []
    for (setting, budget, arm), runs in done.items():
        if arm == host:
            continue
        first = next(iter(runs.values()))
        hosts = done.get((host_setting(first), "steps", host), {})
        paired = {seed: run for seed, run in runs.items() if not run["diverged"] and hosts.get(seed, {}).get("scores")}
        diverged = sum(run["diverged"] is not None for run in runs.values())
        found.append(
            Group(setting, first["what"], budget, arm, paired, {seed: hosts[seed] for seed in paired}, diverged)
        )
    return found


def host_setting(run: Mapping[str, Any]) -> str:
    """Returns the setting whose host a run is compared with: the base if only primitives are changed, else its own."""
    own: str = run["setting"]
    return own if {*run["changes"]} - {"primitives"} else BASE


def interval(
    differences: NDArray[np.float64], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Returns the mean of differences (seeds, photographs), with its percentile bootstrap interval.

    Seeds are drawn with replacement, and then photographs, the same ones for all drawn seeds: every network restores
    the same photographs, and a photograph that suits the primitives suits them with every seed (A. B. Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 2007). With one seed, the interval covers photographs alone;
    with few seeds, it is too narrow.

    Args:
        differences: differences (seeds, photographs).
        confidence: confidence of the interval.
        draws: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        ExDAError: for no differences, or one that is not finite.
    """
    if differences.ndim != 2 or not differences.size or not np.isfinite(differences).all():
        raise ExDAError(f"differences of shape {differences.shape}: expected finite ones, (seeds, photographs)")
    # A bootstrap sample is weights w over seeds and v over photographs; its mean is w^T D v.
    seeds, photographs = _drawn(seed, draws, *differences.shape)
    means = ((seeds @ differences) * photographs).sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(differences.mean()), float(high))


@lru_cache(maxsize=8)
def _drawn(seed: int, draws: int, *numbers: int) -> tuple[NDArray[np.float64], ...]:
    """Returns bootstrap weights (draws, number) for each number: how often each item is drawn, as a fraction of all."""
    # Cached, as the many differences of a report have one shape and take longer to draw than to sum up.
    generator = np.random.default_rng(seed)
    return tuple(generator.multinomial(number, [1 / number] * number, size=draws) / number for number in numbers)


def _photographs(scores: Scores, metric: str, degradations: tuple[str, ...] = ()) -> NDArray[np.float64]:
    """Returns for each photograph the mean over degradations (all by default)."""
    return np.mean([scores[name][metric] for name in degradations or scores], axis=0)
