"""Claims about the quality of restoration, from the quality benchmark and the demo's training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.shared.machine import machine_line
from exda_primitives.workbench.shared.results import Result, read, spread

from .claim import DECIBEL, Claim, Finding, Row, Source, Unit
from .files import hours_of, plain, source
from .verdicts import EFFECT, Gain, effect, gain, size

BASE, HOST, WIDENED = "base", "host", "widened"

CLOSE = 0.01
"""Largest relative difference in parameters between a network and its control of equal size."""

CONTROL = (
    "The wider host has as many parameters as the host with both primitives in every block. A control is of equal size "
    f"if its number of parameters is within {CLOSE:.0%} of the patched network's: the wider host can be one and, for "
    "tokens alone, the host itself. Where neither is that close, there is no control."
)

TIME = "The host trains for its full number of steps; the others train for as many steps as fit into the same time. "

Run = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A score of trained networks, and how it is printed.

    Attributes:
        of: returns a run's score, or None if the run has none.
        unit: how differences are printed.
        digits: decimals that are printed.
        figure: the paper's difference in this score; None where it gives none.
    """

    of: Callable[[Run], float | None]
    unit: Unit
    digits: int
    figure: float | None = None

    def by_seed(self, runs: Sequence[Run], setting: str, arm: str, budget: str) -> dict[int, float]:
        """Returns the scores of an arm's runs by seed, without runs that have no score."""
        wanted = (setting, arm, budget)
        mine = [run for run in runs if (run["setting"], run["arm"], run["budget"]) == wanted]
        return {run["seed"]: value for run in mine if (value := self.of(run)) is not None}

    def mean(self, values: Collection[float]) -> str:
        """Formats values as mean ± standard deviation (number of values)."""
        mean, deviation, n = spread(list(values))
        return f"{mean:.{self.digits}f}" + ("" if deviation is None else f" ± {deviation:.{self.digits}f}") + f" ({n})"


def _psnr(run: Run) -> float | None:
    """Returns the PSNR in dB: mean over photographs, then over degradations; None for a diverged run."""
    return spread([spread(each["psnr"]).mean for each in run["scores"].values()]).mean if run["scores"] else None


PSNR = Measure(_psnr, DECIBEL, 2)


def _over(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Gain | None:
    """Returns the gain of ``ours`` over ``theirs`` over their common seeds; None if they have none in common."""
    seeds = sorted(ours.keys() & theirs.keys())
    return gain([ours[seed] - theirs[seed] for seed in seeds]) if seeds else None


def _trained(arms: Sequence[str], budget: str, folder: Path) -> Finding | None:
    paths = sorted(folder.glob("quality*.json"))
    rows, sources, budgets, diverged = [], [], [], 0
    for path in paths:
        result = read(path, "quality")
        found = [
            replace(row, condition=f"{arm}: {row.condition}") if len(arms) > 1 else row
            for arm in arms
            for row in rows_of(arm, budget, result, PSNR)
        ]
        if found:
            rows += found
            sources.append(source(path, folder, result))
            budgets.append(budget_of(result))
            mine = [run for run in result["runs"] if run["arm"] in arms and run["budget"] == budget]
            diverged += sum(run["scores"] is None for run in mine)
    notes = [
        "PSNR in dB: mean over photographs, then over degradations, ± standard deviation over seeds (number of seeds). "
        + (TIME if budget == "time" else "")
        + CONTROL,
    ]
    if diverged:
        notes.append(f"{diverged} trainings diverged and are left out.")
    head = ("host", "with it", DECIBEL.title, "over the wider host")
    return Finding(head, rows, "; ".join(budgets), sources, notes) if rows else None


def rows_of(
    arm: str, budget: str, result: Result, measure: Measure, *, host: str = HOST, wider: str = WIDENED
) -> list[Row]:
    """Returns a row for each condition under which both an arm and its host were trained with a budget.

    A row's cells are: host, arm, gain over the host, gain over the wider host.

    Args:
        arm: name of the arm.
        budget: "steps" or "time", what the arm and the host have in common.
        result: a result of the quality benchmark, or of the benchmark of trained hosts.
        measure: the score to compare.
        host: the arm that is compared with.
        wider: the arm with as many parameters as the host with both primitives.
    """
    runs = result["runs"]
    settings = dict.fromkeys(run["setting"] for run in runs if (run["arm"], run["budget"]) == (arm, budget))
    rows = []
    for setting in settings:
        first = next(run for run in runs if run["setting"] == setting)
        # A setting that changes only the primitives trains no host of its own: the base's host is the same network.
        home = setting if first["changes"].keys() - {"primitives"} else BASE
        # The host of equal time is the host of equal steps; the others are given its time.
        theirs, control = (measure.by_seed(runs, home, *of) for of in ((host, "steps"), (wider, budget)))
        ours = measure.by_seed(runs, setting, arm, budget)
        over_host, over_wider = _over(ours, theirs), _over(ours, control)
        if over_host is None:
            continue
        both = ours.keys() & theirs.keys()
        cells = [*(measure.mean([each[seed] for seed in both]) for each in (theirs, ours))]
        cells += ["-" if over is None else measure.unit.interval(over) for over in (over_host, over_wider)]
        title = f"{result['config']['form']}, {first['what']}, equal {budget}"
        size_of = {(run["setting"], run["arm"]): run["parameters"] for run in runs if "parameters" in run}
        controls = {
            name: over
            for name, over in ((host, over_host), (wider, over_wider))
            if over is not None and abs(size_of[home, name] / size_of[setting, arm] - 1) <= CLOSE
        }
        verdict = effect(over_host, controls)
        sized = None if measure.figure is None else size(verdict, over_host, measure.figure)
        rows.append(Row(title, cells, over_host, verdict, sized))
    return rows


def budget_of(result: Result) -> str:
    """Describes what was trained: network sizes, steps, crops and photographs, and for how long."""
    config = result["config"]
    recipe, images = config["recipe"], config["pictures"]
    trained = [run for run in result["runs"] if run["scores"]]
    parameters = " to ".join(dict.fromkeys(f"{of(run['parameters'] for run in trained):,}" for of in (min, max)))
    return (
        f"{config['form']}: Restormers of {parameters} parameters, {recipe['steps']:,} steps of batch "
        f"{recipe['batch']}, patches of {config['data']['patch']}, {images['train']['pictures']} training crops, "
        f"{images['test']['pictures']} test photographs; {hours_of(result):.1f} hours of training in all"
    )


def _demo(folder: Path) -> Finding | None:
    path = folder / "demo_weights.json"
    result = plain(path, ("command", "seed", "settings", "phases", "held_out_psnr", "training_crops"))
    if result is None:
        return None
    psnr, phases = result["held_out_psnr"], result["phases"]
    if not {"host", "exda"} <= psnr.keys() & phases.keys():
        raise ConfigError(f"{path}: lacks 'host' or 'exda'; it is of another version, measure again")
    # All crops measure the same two trainings: one repeat.
    more = gain([ours - theirs for ours, theirs in zip(psnr["exda"], psnr["host"], strict=True)], repeats=1)
    cells = [*(f"{spread(psnr[name]).mean:.2f}" for name in ("host", "exda")), DECIBEL.interval(more)]
    host, ours = phases["host"], phases["exda"]
    budget = (
        f"1 training of {ours['steps']:,} steps of batch {result['settings']['batch']} for each, from the same "
        f"weights; {result['training_crops']} training crops"
    )
    notes = (
        f"PSNR in dB, mean over {len(psnr['exda'])} held-out crops. The interval covers these crops only: it says "
        "nothing about how much another training would differ, so the rule counts it as one repeat.",
        f"The network with ExDA has {ours['parameters'] - host['parameters']:,} parameters more than the host, which "
        f"has {host['parameters']:,}; no host of equal size was trained.",
    )
    about = Source(path.name, str(result["seed"]), machine_line(ours["machine"]), result["command"])
    rows = [Row("haze, rain and noise, equal further training", cells, more, effect(more, {}))]
    return Finding(("host", "host + ExDA", DECIBEL.title), rows, budget, [about], notes)


_HIGHER = "better restoration; none of its figures can be compared with those of our networks"
_RUN = "python -m benchmarks.quality run --form cpu --train CROPS --test PHOTOGRAPHS --minutes 30"


def _claim(name: str, title: str, arm: str) -> Claim:
    return Claim(name, title, _HIGHER, None, DECIBEL, EFFECT, _RUN, partial(_trained, (arm,), "steps"))


CLAIMS = (
    _claim("quality-both", "Both primitives restore better: from identity", "both, identity"),
    _claim("quality-paper", "Both primitives restore better: the paper's init", "both, paper"),
    _claim("quality-value", "The non-linear value alone restores better", "value"),
    _claim("quality-tokens", "Global tokens alone restore better", "tokens"),
    Claim(
        "quality-time",
        "The primitives restore better in equal training time, too",
        "compares trainings of equal length and says nothing about equal time",
        None,
        DECIBEL,
        EFFECT,
        _RUN,
        partial(_trained, ("both, identity", "both, paper", "value", "tokens"), "time"),
    ),
    Claim(
        "demo",
        "Both primitives restore better: the demo's network",
        _HIGHER,
        None,
        DECIBEL,
        EFFECT,
        "python benchmarks/demo_weights.py",
        _demo,
    ),
)
