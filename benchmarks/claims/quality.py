"""Claims about the quality of restoration."""

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
from .files import plain, source
from .verdicts import EFFECT, Gain, effect, gain, size

BASE, HOST, WIDENED = "base", "host", "widened"

CLOSE = 0.01
"""How far, as a part, the parameters of a control of equal size may be from those of what it is a control of."""

CONTROL = (
    "The wider host has as many parameters as that with both primitives in every block. A control of equal size has "
    f"within {CLOSE:.0%} as many parameters as what it is compared with: the wider host, or, of tokens alone, the host "
    "itself; where neither has, there is none."
)

TIME = "The host has the time that its steps take, and the others as many steps as fit into that. "

Run = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A figure of a trained network.

    Attributes:
        of: it; None of a run that has none.
        unit: of differences.
        digits: to print.
        figure: the paper's difference, if it gives one.
    """

    of: Callable[[Run], float | None]
    unit: Unit
    digits: int
    figure: float | None = None

    def by_seed(self, runs: Sequence[Run], setting: str, arm: str, budget: str) -> dict[int, float]:
        """Of the runs of an arm that have one."""
        wanted = (setting, arm, budget)
        mine = [run for run in runs if (run["setting"], run["arm"], run["budget"]) == wanted]
        return {run["seed"]: value for run in mine if (value := self.of(run)) is not None}

    def mean(self, values: Collection[float]) -> str:
        """Mean ± standard deviation (their number)."""
        mean, deviation, n = spread(list(values))
        return f"{mean:.{self.digits}f}" + ("" if deviation is None else f" ± {deviation:.{self.digits}f}") + f" ({n})"


def _psnr(run: Run) -> float | None:
    """Mean over degradations of the mean over photographs."""
    return spread([spread(each["psnr"]).mean for each in run["scores"].values()]).mean if run["scores"] else None


PSNR = Measure(_psnr, DECIBEL, 2)


def _over(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Gain | None:
    """Over the seeds that both have; None without any."""
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
        "PSNR in dB: mean over photographs, then over degradations, ± standard deviation over seeds (their number). "
        + (TIME if budget == "time" else "")
        + CONTROL,
    ]
    if diverged:
        notes.append(f"{diverged} trainings diverged and are left out.")
    head = ("host", "with it", DECIBEL.title, "over the wider host")
    return Finding(head, rows, "; ".join(budgets), sources, notes) if rows else None


def rows_of(arm: str, budget: str, result: Result, measure: Measure) -> list[Row]:
    """A row for each condition under which an arm and its host were trained with such a budget.

    Its cells: host, arm, gain over the host, gain over the wider host.
    """
    runs = result["runs"]
    settings = dict.fromkeys(run["setting"] for run in runs if (run["arm"], run["budget"]) == (arm, budget))
    rows = []
    for setting in settings:
        first = next(run for run in runs if run["setting"] == setting)
        # Of a setting that changes the primitives alone, the host is the base's.
        home = setting if first["changes"].keys() - {"primitives"} else BASE
        host, wider = (measure.by_seed(runs, home, *of) for of in ((HOST, "steps"), (WIDENED, budget)))
        ours = measure.by_seed(runs, setting, arm, budget)
        over_host, over_wider = _over(ours, host), _over(ours, wider)
        if over_host is None:
            continue
        both = ours.keys() & host.keys()
        cells = [*(measure.mean([each[seed] for seed in both]) for each in (host, ours))]
        cells += ["-" if over is None else measure.unit.interval(over) for over in (over_host, over_wider)]
        title = f"{result['config']['form']}, {first['what']}, equal {budget}"
        size_of = {(run["setting"], run["arm"]): run["parameters"] for run in runs if "parameters" in run}
        controls = {
            name: over
            for name, over in ((HOST, over_host), (WIDENED, over_wider))
            if over is not None and abs(size_of[home, name] / size_of[setting, arm] - 1) <= CLOSE
        }
        verdict = effect(over_host, controls)
        sized = None if measure.figure is None else size(verdict, over_host, measure.figure)
        rows.append(Row(title, cells, over_host, verdict, sized))
    return rows


def budget_of(result: Result) -> str:
    """What was trained, in words."""
    config = result["config"]
    recipe, images = config["recipe"], config["pictures"]
    trained = [run for run in result["runs"] if run["scores"]]
    parameters = " to ".join(dict.fromkeys(f"{of(run['parameters'] for run in trained):,}" for of in (min, max)))
    return (
        f"{config['form']}: Restormers of {parameters} parameters, {recipe['steps']:,} steps of {recipe['batch']}, "
        f"patches of {config['data']['patch']}, {images['train']['pictures']} training crops, "
        f"{images['test']['pictures']} test photographs"
    )


def _demo(folder: Path) -> Finding | None:
    path = folder / "demo_weights.json"
    result = plain(path, ("command", "seed", "settings", "phases", "held_out_psnr", "training_crops"))
    if result is None:
        return None
    psnr, phases = result["held_out_psnr"], result["phases"]
    if not {"host", "exda"} <= psnr.keys() & phases.keys():
        raise ConfigError(f"{path}: lacks 'host' or 'exda'; it is of another version, measure again")
    # However many crops are measured, it is one training with and one without.
    more = gain([ours - theirs for ours, theirs in zip(psnr["exda"], psnr["host"], strict=True)], repeats=1)
    cells = [*(f"{spread(psnr[name]).mean:.2f}" for name in ("host", "exda")), DECIBEL.interval(more)]
    host, ours = phases["host"], phases["exda"]
    budget = (
        f"1 training of {ours['steps']:,} steps of {result['settings']['batch']} for each, from the same weights; "
        f"{result['training_crops']} training crops"
    )
    notes = (
        f"PSNR in dB, mean over {len(psnr['exda'])} held-out crops. The interval is over these alone: it says nothing "
        "about how much another training would differ, so that by the rule it is one repeat.",
        f"The network with ExDA has {ours['parameters'] - host['parameters']:,} parameters more than the host's "
        f"{host['parameters']:,}; no host of equal size was trained.",
    )
    about = Source(path.name, str(result["seed"]), machine_line(ours["machine"]), result["command"])
    rows = [Row("haze, rain and noise, equal further training", cells, more, effect(more, {}))]
    return Finding(("host", "host + ExDA", DECIBEL.title), rows, budget, [about], notes)


_HIGHER = "better restoration; no figure that could be compared with that of these networks"
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
        "compares at equal length of training; of equal time it says nothing",
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
