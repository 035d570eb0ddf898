"""Measures for ``exda bench``: skips what was measured before, writes rows as they come, prints tables at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .. import memory
from ..workbench.shared.progress import progress_on
from .command import command_line
from .errors import stop_on_signal
from .names import printable

if TYPE_CHECKING:
    import torch

    from ..workbench.bench.budget import Budget
    from ..workbench.bench.cases import Case, Comparison
    from ..workbench.bench.harness import Effort, Harness
    from ..workbench.bench.networks import Networks
    from ..workbench.bench.record import Origin, Record

RESULTS = "results.jsonl"

Work = Sequence[tuple["Comparison", list["Case"]]]

_TRAINING = 3
"""How many times longer than a forward pass a training step is assumed to take, to estimate the remaining time."""


def about(device: torch.device) -> dict[str, Any]:
    """Returns the description of the machine that records carry, and whether freed memory is kept."""
    from ..workbench.shared.machine import machine  # noqa: PLC0415

    return machine(device) | {"memory_kept": memory.kept()}


def measure(
    work: Work,
    records: list[Record],
    device: torch.device,
    out: Path,
    effort: Effort,
    budget: Budget,
    build: Callable[[str], Networks] | None = None,
) -> list[Record]:
    """Measures the cases that are not in ``records``, and adds them to it and to the folder.

    Args:
        work: comparisons and their cases, in the order in which they are measured.
        records: what the folder already has; is extended.
        device: where the networks compute.
        out: the folder.
        effort: how long to measure each comparison.
        budget: how long everything may take.
        build: returns the networks for a name; by default the harness's own.

    Returns:
        Records of the cases for which there was no time.
    """
    from ..workbench.bench.bandwidth_floor import copy_bandwidth  # noqa: PLC0415
    from ..workbench.bench.harness import Harness  # noqa: PLC0415
    from ..workbench.bench.record import Origin, finished  # noqa: PLC0415

    done = finished(records)
    remaining = [(comparison, cases) for comparison, cases in work if not done.issuperset(cases)]
    if not remaining:
        return []
    out.mkdir(parents=True, exist_ok=True)
    file = out / RESULTS
    origin = Origin(command_line(), about(device), copy_bandwidth(device))
    harness = Harness(device, effort, origin, budget=budget, **({"build": build} if build else {}))
    with stop_on_signal(lambda: f"{len(records)} cases are in {file}; the same command goes on there"):
        try:
            return _run(harness, remaining, file, records, origin)
        finally:
            # After an interruption, too, the tables show what was measured.
            _write(records, out)


def _run(harness: Harness, work: Work, file: Path, records: list[Record], origin: Origin) -> list[Record]:
    from ..workbench.bench.record import OUT_OF_TIME, Record, append, finished  # noqa: PLC0415

    costs = [_cost(comparison, cases) for comparison, cases in work]
    left: list[Record] = []
    with progress_on(Console()) as progress:
        task = progress.add_task("", total=sum(costs))
        for index, (comparison, cases) in enumerate(work):

            def on_share(share: float, before: float = sum(costs[:index]), cost: float = costs[index]) -> None:
                progress.update(task, completed=before + share * cost)

            progress.update(task, description=f"{index + 1} of {len(work)}: {comparison}")
            # A comparison is always run as a whole, because ratios need all its cases timed in the same turns. If it
            # was interrupted before, some of its rows exist; these are not written again.
            done = finished(records)
            if why := _too_long(harness.budget, costs[index]):
                left += [Record(case, OUT_OF_TIME, origin, why) for case in cases if case not in done]
                continue
            begun = time.monotonic()
            for record in harness.run(comparison, cases, on_share):
                if record.case in done:
                    continue
                if record.status == OUT_OF_TIME:
                    left.append(record)
                    continue
                append(file, record)
                records.append(record)
            harness.budget.spent(costs[index], time.monotonic() - begun)
            on_share(1)
    return left


def _too_long(budget: Budget, cost: float) -> str | None:
    """Returns why a comparison is left out, or None. Before anything was measured there is no estimate: it is tried."""
    need, left = budget.estimate(cost), budget.left()
    if left <= 0:
        return "the time is over"
    return None if need is None or need <= left else "longer than the time that was left for it"


def _cost(comparison: Comparison, cases: Sequence[Case]) -> float:
    """Returns a comparison's cost relative to the others': forward passes times pixels."""
    from ..workbench.bench.cases import TRAINING  # noqa: PLC0415

    return comparison.pixels * len(cases) * (_TRAINING if comparison.task == TRAINING else 1)


def _write(records: Sequence[Record], out: Path) -> None:
    from ..files import write_text  # noqa: PLC0415
    from ..workbench.bench.record import write_csv  # noqa: PLC0415
    from ..workbench.bench.table import markdown  # noqa: PLC0415

    if records:
        write_csv(out / "results.csv", records)
        write_text(out / "results.md", markdown(records))


def print_results(records: Sequence[Record], left: Sequence[Record], out: Path, advice: str) -> None:
    """Prints tables of the cases measured and left out, where the results are, and ``advice`` on measuring the rest."""
    from ..workbench.bench.table import printed  # noqa: PLC0415
    from ..workbench.shared.machine import machine_line  # noqa: PLC0415

    console = Console()
    for table in printed([*records, *left]):
        console.print(table)
    if records:
        console.print(machine_line(records[-1].origin.machine), markup=False, highlight=False)
        written = printable(f"written: {out / RESULTS}, results.csv, results.md")
        console.print(written, markup=False, highlight=False, soft_wrap=True)
    if left:
        console.print(f"left for want of time: {len(left)}; {advice}", highlight=False, soft_wrap=True)


def failed(records: Sequence[Record]) -> bool:
    """Returns whether a case was wrong or raised an error, as opposed to one that this machine cannot run."""
    from ..workbench.bench.record import ERROR, WRONG  # noqa: PLC0415

    return any(record.status in (WRONG, ERROR) for record in records)
