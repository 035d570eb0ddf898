"""Claims about the form and the position of the non-linear value, from the result files of ``exda diagnose``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exda_primitives.workbench.diagnostics.digits import DigitsExperiment
from exda_primitives.workbench.diagnostics.experiment import Experiment, Metric
from exda_primitives.workbench.diagnostics.function import FunctionExperiment
from exda_primitives.workbench.diagnostics.position import PositionExperiment
from exda_primitives.workbench.diagnostics.table import by_variant, conditions
from exda_primitives.workbench.diagnostics.variants import LINEAR, RESIDUAL, VARIANTS, WIDENED
from exda_primitives.workbench.diagnostics.windows import WindowsExperiment
from exda_primitives.workbench.shared.results import Result, read, spread

from .claim import DECIBEL, Claim, Finding, Row, Source, Unit, times
from .files import source
from .verdicts import BEST, EFFECT, ONLY_BEFORE, Gain, best, effect, gain, log_ratios, only_before, size

BRANCH, REPLACE, AFTER = "branch", "replace", "after"
CONTROLS = (WIDENED, BRANCH)
OTHERS = (REPLACE, "gelu", "sigmoid")

Runs = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Condition:
    """The runs of one condition in one file.

    Attributes:
        title: its description.
        metric: what was measured.
        runs: variant -> its runs, in the order of the seeds.
    """

    title: str
    metric: Metric
    runs: Runs

    def gain(self, ours: str, theirs: str) -> Gain | None:
        """Returns the gain of variant ``ours`` over ``theirs`` over their common seeds; None if they have none."""
        values = [{row["seed"]: row[self.metric.name] for row in self.runs.get(name, ())} for name in (ours, theirs)]
        seeds = sorted(values[0].keys() & values[1].keys())
        if not seeds:
            return None
        mine, others = ([of[seed] for seed in seeds] for of in values)
        if self.metric.error:
            # Smaller is better: theirs over ours, so that a gain is positive.
            return gain(log_ratios(others, mine))
        return gain([one - other for one, other in zip(mine, others, strict=True)])

    def gains(self, ours: str, theirs: Sequence[str]) -> dict[str, Gain]:
        """Returns the gain of ``ours`` over each of several variants, without those that share no seed with it."""
        found = {other: self.gain(ours, other) for other in theirs}
        return {other: each for other, each in found.items() if each is not None}

    def mean(self, name: str) -> str:
        """Formats a variant's metric as mean ± standard deviation (number of seeds)."""
        mean, deviation, n = spread([row[self.metric.name] for row in self.runs[name]])
        form = ".3g" if self.metric.error else ".2f"
        more = "" if deviation is None else f" ± {deviation:{'.1g' if self.metric.error else form}}"
        return f"{mean:{form}}{more} ({n})"


@dataclass(frozen=True)
class Measured:
    """What the result files of some experiments hold.

    Attributes:
        found: conditions of all files.
        budget: how much was trained, as text.
        sources: the files.
    """

    found: Sequence[Condition]
    budget: str
    sources: Sequence[Source]


def read_all(folder: Path, experiments: Sequence[type[Experiment]]) -> Measured:
    """Reads every result of the experiments in a folder and its direct subfolders.

    Raises:
        ConfigError: for a file that is damaged, of another kind or of another version.
    """
    found: list[Condition] = []
    budgets: list[str] = []
    sources: list[Source] = []
    for experiment in experiments:
        name = f"diagnose_{experiment.kind}.json"
        for path in [each for each in (folder / name, *sorted(folder.glob(f"*/{name}"))) if each.exists()]:
            result = read(path, experiment.kind)
            found += _conditions(experiment, result)
            budgets.append(_budget(experiment, result))
            sources.append(source(path, folder, result))
    return Measured(found, "; ".join(budgets), sources)


def _conditions(experiment: type[Experiment], result: Result) -> Iterator[Condition]:
    spent = f"{result['config']['steps']:,} steps of batch {result['config']['batch']}"
    for name in conditions(result):
        yield Condition(f"{experiment.kind}, {spent}: {name}", experiment.metric, by_variant(result, name))


def _budget(experiment: type[Experiment], result: Result) -> str:
    config, runs = result["config"], result["runs"]
    sizes = [row["parameters"] for row in runs]
    parameters = " to ".join(dict.fromkeys(f"{of(sizes):,}" for of in (min, max))) if sizes else "no"
    data = f", {config['training_images']:,} training images" if "training_images" in config else ""
    return (
        f"{experiment.kind}: {len(runs)} networks of {parameters} parameters, each {config['steps']:,} steps of "
        f"batch {config['batch']}{data}, {len({row['seed'] for row in runs})} seeds"
    )


def _better(
    experiment: type[Experiment], unit: Unit, figure: float | None, notes: Sequence[str], folder: Path
) -> Finding | None:
    """Checks whether V + g(V) is better than the linear value and the controls of equal size."""
    measured = read_all(folder, [experiment])
    rows = []
    for each in measured.found:
        over_linear, over_controls = each.gain(RESIDUAL, LINEAR), each.gains(RESIDUAL, CONTROLS)
        if over_linear is None:
            continue
        verdict = effect(over_linear, over_controls)
        controls = [unit.interval(over_controls[name]) if name in over_controls else "-" for name in CONTROLS]
        cells = [each.mean(LINEAR), each.mean(RESIDUAL), unit.interval(over_linear), *controls]
        of_size = None if figure is None else size(verdict, over_linear, figure)
        rows.append(Row(each.title, cells, over_linear, verdict, of_size))
    head = ["linear V", "V + g(V)", unit.title, *(f"over {VARIANTS[name].title}" for name in CONTROLS)]
    return _finding(head, rows, measured, notes)


def _where(experiments: Sequence[type[Experiment]], unit: Unit, notes: Sequence[str], folder: Path) -> Finding | None:
    """Checks whether only a non-linearity before the aggregation helps."""
    measured = read_all(folder, experiments)
    rows = []
    for each in measured.found:
        before, after = each.gain(RESIDUAL, LINEAR), each.gain(AFTER, LINEAR)
        against = each.gain(RESIDUAL, AFTER)
        # The rule needs a control of equal size: without the widened linear value there is no row.
        if before is None or after is None or against is None or WIDENED not in each.runs:
            continue
        verdict = only_before(before, each.gains(RESIDUAL, [WIDENED]), after, each.gains(AFTER, [WIDENED]))
        cells = [each.mean(name) for name in (LINEAR, WIDENED, RESIDUAL, AFTER)]
        cells += [unit.interval(of) for of in (before, after, against)]
        rows.append(Row(each.title, cells, against, verdict))
    head = ["linear V", "linear V, widened", "before: V + g(V)", "after: O + g(O)"]
    head += ["before over linear V", "after over linear V", unit.title]
    return _finding(head, rows, measured, notes)


def _best(experiments: Sequence[type[Experiment]], unit: Unit, notes: Sequence[str], folder: Path) -> Finding | None:
    """Checks whether V + g(V) is better than the other forms of the value."""
    measured = read_all(folder, experiments)
    rows = []
    for each in measured.found:
        over_others = each.gains(RESIDUAL, OTHERS)
        if REPLACE not in over_others:
            continue
        cells = [unit.interval(over_others[name]) if name in over_others else "-" for name in OTHERS]
        rows.append(Row(each.title, [each.mean(RESIDUAL), *cells], over_others[REPLACE], best(over_others)))
    head = ["V + g(V)", *(f"over {VARIANTS[name].title}" for name in OTHERS)]
    return _finding(head, rows, measured, notes)


def _finding(head: Sequence[str], rows: Sequence[Row], measured: Measured, notes: Sequence[str]) -> Finding | None:
    return Finding(head, rows, measured.budget, measured.sources, notes) if rows else None


_ERROR = "Errors are relative to the target's variance: mean ± standard deviation over seeds (number of seeds)."
_DECIBELS = "PSNR in dB on held-out digits: mean ± standard deviation over seeds (number of seeds)."
_OURS = "The paper gives neither architecture nor data; ours are in `src/exda_primitives/workbench/diagnostics/{}.py`."
_REPLACED = "The plot and the summary show the gain over g(V); the verdict takes all other forms into account."
_RATIOS = "A column “A over B” is the error of B divided by the error of A: above 1x, A is better."
_WINDOWS = "The networks are in `src/exda_primitives/workbench/diagnostics/windows.py`."
_WORSE, _HIGHER = math.log(1.504), 5.92
_BY_LINEAR = times("error of linear V / of V + g(V)")
_BY_AFTER = times("error of O + g(O) / of V + g(V)")
_BEFORE = Unit("gain of V + g(V) over O + g(O) (dB)", DECIBEL.number, DECIBEL.suffix)
_BY_OTHER = times("error of g(V) / of V + g(V)")

CLAIMS = (
    Claim(
        "function",
        "Linear values are worse at approximating a function of one number",
        "linear values 50.4 % worse, which we read as 1.504 times the error",
        _WORSE,
        _BY_LINEAR,
        EFFECT,
        "exda diagnose function --out benchmarks/results --seeds 5",
        partial(_better, FunctionExperiment, _BY_LINEAR, _WORSE, (_ERROR, _OURS.format("function"))),
    ),
    Claim(
        "digits",
        "Non-linear values restore degraded digits better",
        "19.2 dB with linear, 25.1 dB with non-linear values: +5.92 dB",
        _HIGHER,
        DECIBEL,
        EFFECT,
        "exda diagnose digits --data mnist.npz --out benchmarks/results",
        partial(_better, DigitsExperiment, DECIBEL, _HIGHER, (_DECIBELS, _OURS.format("digits"))),
    ),
    Claim(
        "windows",
        "Non-linear values restore degraded digits better within windows (an extension: the paper claims nothing)",
        "no figure",
        None,
        DECIBEL,
        EFFECT,
        "exda diagnose digits --windows --data mnist.npz --out benchmarks/results --variant linear --variant widened "
        "--variant branch --variant residual",
        partial(_better, WindowsExperiment, DECIBEL, None, (_DECIBELS, _WINDOWS)),
    ),
    Claim(
        "position",
        "Only a non-linearity before the aggregation leaves the span of the values: approximation",
        "no figure",
        None,
        _BY_AFTER,
        ONLY_BEFORE,
        "exda diagnose position --out benchmarks/results --seeds 5",
        partial(
            _where, (PositionExperiment, FunctionExperiment), _BY_AFTER, (_ERROR, _RATIOS, _OURS.format("position"))
        ),
    ),
    Claim(
        "position-digits",
        "Only a non-linearity before the aggregation leaves the span of the values: restoration of digits",
        "no figure",
        None,
        _BEFORE,
        ONLY_BEFORE,
        "exda diagnose digits --data mnist.npz --out benchmarks/results",
        partial(_where, (DigitsExperiment,), _BEFORE, (_DECIBELS,)),
    ),
    Claim(
        "form-errors",
        "V + g(V) is the best form of the value: approximation",
        "better than the other forms in its ablation; no figure that could be compared",
        None,
        _BY_OTHER,
        BEST,
        "exda diagnose function --out benchmarks/results --seeds 5",
        partial(_best, (FunctionExperiment, PositionExperiment), _BY_OTHER, (_ERROR, _REPLACED)),
    ),
    Claim(
        "form-digits",
        "V + g(V) is the best form of the value: restoration of digits",
        "better than the other forms in its ablation; no figure that could be compared",
        None,
        DECIBEL,
        BEST,
        "exda diagnose digits --data mnist.npz --out benchmarks/results",
        partial(_best, (DigitsExperiment,), DECIBEL, (_DECIBELS, _REPLACED)),
    ),
)
