"""Tables of results, as Markdown and for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..shared.results import Interval, Result, difference, spread
from ..shared.tables import markdown_page, markdown_table, provenance, settings_text, spread_text, terminal_table
from .experiment import Experiment, Metric
from .variants import LINEAR, VARIANTS

if TYPE_CHECKING:
    from rich.table import Table


def conditions(result: Result) -> list[str]:
    """Returns the conditions of a result, in their order in the file."""
    return list(dict.fromkeys(row["condition"] for row in result["runs"]))


def by_variant(result: Result, condition: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the runs under a condition by variant, each variant's in the order of seeds."""
    rows = sorted((row for row in result["runs"] if row["condition"] == condition), key=lambda row: row["seed"])
    found = {name: [row for row in rows if row["variant"] == name] for name in VARIANTS}
    return {name: held for name, held in found.items() if held}


def against_linear(rows: list[dict[str, Any]], linear: list[dict[str, Any]], metric: Metric) -> Interval | None:
    """Compares a variant with the linear value, over the seeds that both have.

    Returns:
        The mean difference, or for an error the ratio of geometric means, with a 95% bootstrap interval. None if they
        share no seed.
    """
    theirs = {row["seed"]: row[metric.name] for row in linear}
    pairs = [(row[metric.name], theirs[row["seed"]]) for row in rows if row["seed"] in theirs]
    if not pairs:
        return None
    ours, others = zip(*pairs, strict=True)
    if not metric.error:
        return difference(ours, others)
    # In logarithms, so that half the error counts as much as twice the error.
    found = difference([math.log(value) for value in ours], [math.log(value) for value in others])
    return Interval(*(math.exp(value) for value in found))


def markdown(experiment: type[Experiment], result: Result) -> str:
    """Returns a Markdown page with all results."""
    metric = experiment.metric
    compared = "ratio to linear V" if metric.error else "difference to linear V"
    head = ["value path", "parameters", metric.title, compared]
    blocks: list[str | list[str]] = []
    for condition in conditions(result):
        rows = rows_of(experiment, result, condition)
        blocks += [f"## {condition[0].upper()}{condition[1:]}", markdown_table(head, rows)]
    # From the runs: an interrupted experiment has not all planned seeds.
    seeds = sorted({row["seed"] for row in result["runs"]})
    return markdown_page(
        experiment.title,
        f"{metric.title} on held-out data: mean ± standard deviation over seeds (their number); {compared} seed by "
        f"seed{', geometric mean' if metric.error else ''}, with a 95% bootstrap interval, which of three seeds spans "
        f"hardly more than the smallest and the largest. {'Smaller' if metric.error else 'Larger'} is better.",
        *blocks,
        f"Configuration: {settings_text(result['config'])}. Seeds: {', '.join(map(str, seeds))}.",
        provenance(result),
    )


def printed(experiment: type[Experiment], result: Result) -> list[Table]:
    """Returns a table for the terminal for each condition."""
    compared = "ratio to linear" if experiment.metric.error else "difference to linear"
    head = ("value path", "parameters", experiment.metric.title, compared)
    return [terminal_table(head, rows_of(experiment, result, each), each) for each in conditions(result)]


def rows_of(experiment: type[Experiment], result: Result, condition: str) -> list[list[str]]:
    """Returns a row of text cells for each variant."""
    metric = experiment.metric
    # Significant digits for errors, as they span orders of magnitude.
    forms = (".3g", ".1g") if metric.error else (".2f", ".2f")
    runs = by_variant(result, condition)
    rows = []
    for name, held in runs.items():
        compared = None if name == LINEAR else against_linear(held, runs.get(LINEAR, []), metric)
        values = [row[metric.name] for row in held]
        cells = (f"{held[0]['parameters']:,}", spread_text(spread(values), *forms), _interval(compared, metric))
        rows.append([VARIANTS[name].title, *cells])
    return rows


def _interval(of: Interval | None, metric: Metric) -> str:
    if of is None:
        return "-"
    form = ".3g" if metric.error else "+.2f"
    # A single pair has no interval.
    between = f" ({of.low:{form}} to {of.high:{form}})" if of.low < of.high else ""
    return f"{of.mean:{form}}{between}"
