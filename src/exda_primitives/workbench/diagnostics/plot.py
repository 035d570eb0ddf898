"""Plots results: a panel for each condition, a line for each variant."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from ..shared.plotting import BLUE, ORANGE, matplotlib_figure
from ..shared.results import Result, spread
from .experiment import Experiment
from .table import by_variant, conditions
from .variants import LINEAR, VARIANTS

_COLUMNS = 3


def figure(experiment: type[Experiment], result: Result) -> Any:
    """Draws a Matplotlib figure: a dot for each run, a bar for the mean, a vertical line for the linear value's mean.

    Raises:
        ExDAError: Matplotlib is missing.
    """
    metric = experiment.metric
    found = conditions(result)
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    names = [name for name in VARIANTS if any(name in by_variant(result, condition) for condition in found)]
    made = matplotlib_figure("diagnose").Figure(
        figsize=(2.6 + 3.2 * columns, 1.2 + rows * (0.8 + 0.28 * len(names))), layout="constrained"
    )
    panels = list(made.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, condition in zip(panels, found, strict=False):
        for name, held in by_variant(result, condition).items():
            values = [row[metric.name] for row in held]
            place = names.index(name)
            colour = ORANGE if _is_linear(name) else BLUE
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.6)
            axes.plot(spread(values).mean, place, "|", color=colour, markersize=16, markeredgewidth=2)
            if name == LINEAR:
                axes.axvline(spread(values).mean, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title("\n".join(wrap(condition, 34)), fontsize="medium")
        axes.set(xlabel=metric.title, xscale="log" if metric.error else "linear")
        axes.set_yticks(range(len(names)), [VARIANTS[name].title for name in names])
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    made.axes[0].invert_yaxis()
    made.suptitle(f"{experiment.title} (orange: linear in V)")
    return made


def _is_linear(name: str) -> bool:
    return VARIANTS[name].value == "none"
