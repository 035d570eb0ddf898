"""Claims about the quality of restoration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from exda_primitives.bench.machine import machine_line
from exda_primitives.errors import ConfigError
from exda_primitives.results import Result, read, spread

from .claim import DECIBEL, Claim, Finding, Row, Source
from .files import plain, source
from .verdicts import EFFECT, Gain, effect, gain

BASE, HOST, WIDENED = "base", "host", "widened"

CLOSE = 0.01
"""How far, as a part, the parameters of a control of equal size may be from those of what it is a control of."""

Run = dict[str, Any]


def _psnr(run: Run) -> float:
    """Mean over degradations of the mean over photographs."""
    return spread([spread(each["psnr"]).mean for each in run["scores"].values()]).mean


def _over(ours: Mapping[int, Run], theirs: Mapping[int, Run]) -> Gain | None:
    """Over the seeds that both have; None without any."""
    seeds = sorted(ours.keys() & theirs.keys())
    return gain([_psnr(ours[seed]) - _psnr(theirs[seed]) for seed in seeds]) if seeds else None


def _seeds(runs: Sequence[Run], setting: str, arm: str, budget: str) -> dict[int, Run]:
    """The finished runs of an arm, by seed."""
    wanted = (setting, arm, budget)
    return {run["seed"]: run for run in runs if (run["setting"], run["arm"], run["budget"]) == wanted and run["scores"]}


def _trained(arm: str, folder: Path) -> Finding | None:
    paths = sorted(folder.glob("quality*.json"))
    rows, sources, budgets, diverged = [], [], [], 0
    for path in paths:
        result = read(path, "quality")
        found = _rows(arm, result)
        if found:
            rows += found
            sources.append(source(path, folder, result))
            budgets.append(_budget(result))
            diverged += sum(run["arm"] == arm and run["scores"] is None for run in result["runs"])
    notes = [
        "PSNR in dB: mean over photographs, then over degradations, ± standard deviation over seeds (their number). "
        "Of equal time, the host has the time that its steps take, and the others as many steps as fit into that. The "
        "wider host has as many parameters as that with both primitives in every block. A control of equal size has "
        f"within {CLOSE:.0%} as many parameters as what it is compared with: the wider host, or, of tokens alone, the "
        "host itself; where neither has, there is none.",
    ]
    if diverged:
        notes.append(f"{diverged} trainings of this arm diverged and are left out.")
    head = ("host", "with it", DECIBEL.title, "over the wider host")
    return Finding(head, rows, "; ".join(budgets), sources, notes) if rows else None


def _rows(arm: str, result: Result) -> list[Row]:
    runs = result["runs"]
    conditions = dict.fromkeys((run["setting"], run["budget"]) for run in runs if run["arm"] == arm)
    rows = []
    for setting, budget in conditions:
        first = next(run for run in runs if run["setting"] == setting)
        # Of a setting that changes the primitives alone, the host is the base's.
        home = setting if first["changes"].keys() - {"primitives"} else BASE
        host, wider = _seeds(runs, home, HOST, "steps"), _seeds(runs, home, WIDENED, budget)
        ours = _seeds(runs, setting, arm, budget)
        over_host, over_wider = _over(ours, host), _over(ours, wider)
        if over_host is None:
            continue
        both = ours.keys() & host.keys()
        cells = [*(_mean({seed: each[seed] for seed in both}) for each in (host, ours)), DECIBEL.interval(over_host)]
        cells.append(DECIBEL.interval(over_wider) if over_wider else "-")
        title = f"{result['config']['form']}, {first['what']}, equal {budget}"
        controls = {
            name: over
            for name, each, over in ((HOST, host, over_host), (WIDENED, wider, over_wider))
            if over is not None and _of_equal_size(ours, each)
        }
        rows.append(Row(title, cells, over_host, effect(over_host, controls)))
    return rows


def _of_equal_size(ours: Mapping[int, Run], theirs: Mapping[int, Run]) -> bool:
    mine, others = (next(iter(runs.values()))["parameters"] for runs in (ours, theirs))
    return bool(abs(others / mine - 1) <= CLOSE)


def _mean(runs: Mapping[int, Run]) -> str:
    mean, deviation, n = spread([_psnr(run) for run in runs.values()])
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}") + f" ({n})"


def _budget(result: Result) -> str:
    config = result["config"]
    recipe, pictures = config["recipe"], config["pictures"]
    trained = [run for run in result["runs"] if run["scores"]]
    parameters = " to ".join(dict.fromkeys(f"{of(run['parameters'] for run in trained):,}" for of in (min, max)))
    return (
        f"{config['form']}: Restormers of {parameters} parameters, {recipe['steps']:,} steps of {recipe['batch']}, "
        f"patches of {config['data']['patch']}, {pictures['train']['pictures']} training crops, "
        f"{pictures['test']['pictures']} test photographs"
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
    return Claim(name, title, _HIGHER, None, DECIBEL, EFFECT, _RUN, partial(_trained, arm))


CLAIMS = (
    _claim("quality-both", "Both primitives restore better: from identity", "both, identity"),
    _claim("quality-paper", "Both primitives restore better: the paper's init", "both, paper"),
    _claim("quality-value", "The non-linear value alone restores better", "value"),
    _claim("quality-tokens", "Global tokens alone restore better", "tokens"),
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
