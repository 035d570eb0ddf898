"""``exda bench``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .command import command_line
from .errors import stoppable
from .names import printable

if TYPE_CHECKING:
    import torch

    from ..bench.cases import Case, Comparison
    from ..bench.harness import Harness
    from ..bench.record import Record

bench = typer.Typer(
    help="Time and memory of patched networks beside the originals that they came from.", no_args_is_help=True
)

_RESULTS = "results.jsonl"
_SIZES = {"cuda": ("256", "512", "1024", "2048", "3840x2160"), "cpu": ("64", "128")}
_FORMATS = {"cuda": "bf16", "cpu": "float32"}
_MODES = {"cuda": ("eager", "captured"), "cpu": ("eager",)}
_TRAINING = 3
"""How many times longer a training step takes than a forward pass, for the time that remains."""


@bench.command()
def run(
    out: Annotated[
        Path, typer.Option(help="Folder for the results; what it holds of them is not measured again.", file_okay=False)
    ],
    backbone: Annotated[
        list[str] | None, typer.Option(help="restormer, promptir, adair, histoformer (all by default), restormer-tiny.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="original (always), reference, torch, triton, fused; by default all."),
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="eager, compiled, captured; by default eager, on CUDA captured as well.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="forward (by default), training.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32, tf32, bf16, fp16; by default bf16, on the CPU float32.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="256 or 3840x2160; by default 256, 512, 1024, 2048, 3840x2160, on the CPU 64, 128."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 1,
    turns: Annotated[int, typer.Option(help="How often each case is timed.", min=1)] = 20,
    warm_up: Annotated[int, typer.Option(help="Turns before.", min=0)] = 2,
    seconds: Annotated[float, typer.Option(help="Begin no turn after so long, but never before the fifth.")] = 30,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure. Options that name something may be given several times.

    Every case is checked before it is timed; one that does not compute what it should is not timed, and the exit code
    is then 1. A line of results is written as soon as it is known; the same command goes on where it was interrupted.
    """
    from ..bench import cases, networks  # noqa: PLC0415
    from ..bench.precision import PRECISIONS  # noqa: PLC0415
    from .devices import named_device  # noqa: PLC0415

    where = named_device(device)
    kind = where.type
    formats = _known("--precision", precision, PRECISIONS, (_FORMATS[kind],))
    names = _known("--backbone", backbone, networks.BACKBONES, networks.NAMED)
    tasks = _known("--task", task, cases.TASKS, (cases.FORWARD,))
    variants = _known("--variant", variant, cases.VARIANTS, cases.VARIANTS)
    modes = _known("--mode", mode, cases.MODES, _MODES[kind])
    sizes = [cases.parse_size(each) for each in size or _SIZES[kind]]
    work = [
        (comparison, cases.cases_of(comparison, variants, modes))
        for comparison in cases.comparisons(names, tasks, formats, batch, sizes)
    ]
    records = _measured(work, where, out, turns, warm_up, seconds)
    _print(records, out)
    if any(record.status in ("wrong", "error") for record in records):
        raise typer.Exit(1)


@bench.command()
def plot(
    results: Annotated[list[Path], typer.Argument(help="Folders that exda bench run wrote, or files in them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures; by default that of the first results.", file_okay=False),
    ] = None,
) -> None:
    """Draw time, memory and ratio against pixels, a picture for each network, task, number format and batch."""
    from ..bench.plots import plot as draw  # noqa: PLC0415
    from ..bench.record import read  # noqa: PLC0415

    files = [path / _RESULTS if path.is_dir() else path for path in results]
    written = draw([record for file in files for record in read(file)], out or files[0].parent)
    console = Console()
    for path in written:
        console.print(printable(f"written: {path}"), markup=False, highlight=False, soft_wrap=True)
    if not written:
        console.print("nothing in these results was timed", highlight=False)
        raise typer.Exit(1)


def _measured(
    work: Sequence[tuple[Comparison, list[Case]]],
    device: torch.device,
    out: Path,
    turns: int,
    warm_up: int,
    seconds: float,
) -> list[Record]:
    """All records of the folder, those that were there before included."""
    from ..bench.floor import copy_bandwidth  # noqa: PLC0415
    from ..bench.harness import Effort, Harness  # noqa: PLC0415
    from ..bench.machine import machine  # noqa: PLC0415
    from ..bench.record import Origin, finished, read, same_machine  # noqa: PLC0415

    about = machine(device)
    out.mkdir(parents=True, exist_ok=True)
    file = out / _RESULTS
    records = read(file) if file.exists() else []
    same_machine(records, about, file)
    done = finished(records)
    left = [(comparison, cases) for comparison, cases in work if not done.issuperset(cases)]
    if not left:
        return records
    effort = Effort(turns, warm_up, seconds)
    harness = Harness(device, effort, Origin(command_line(), about, copy_bandwidth(device)))
    with stoppable(lambda: f"{len(records)} cases are in {file}; the same command goes on there"):
        try:
            _run(harness, left, file, records)
        finally:
            # Interrupted as well: what is there can be read.
            _write(records, out)
    return records


def _run(harness: Harness, work: Sequence[tuple[Comparison, list[Case]]], file: Path, records: list[Record]) -> None:
    from ..bench.record import append, finished  # noqa: PLC0415

    costs = [_cost(comparison, cases) for comparison, cases in work]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task("", total=sum(costs))
        for index, (comparison, cases) in enumerate(work):

            def on_share(share: float, before: float = sum(costs[:index]), cost: float = costs[index]) -> None:
                progress.update(task, completed=before + share * cost)

            progress.update(task, description=f"{index + 1} of {len(work)}: {comparison}")
            # A comparison is run as a whole, for the ratios' sake; of one that was interrupted some rows are there.
            done = finished(records)
            for record in harness.run(comparison, cases, on_share):
                if record.case not in done:
                    append(file, record)
                    records.append(record)
            on_share(1)


def _cost(comparison: Comparison, cases: Sequence[Case]) -> float:
    return comparison.pixels * len(cases) * (_TRAINING if comparison.task == "training" else 1)


def _write(records: Sequence[Record], out: Path) -> None:
    from ..bench.record import write_csv  # noqa: PLC0415
    from ..bench.table import markdown  # noqa: PLC0415
    from ..files import write_text  # noqa: PLC0415

    if records:
        write_csv(out / "results.csv", records)
        write_text(out / "results.md", markdown(records))


def _print(records: Sequence[Record], out: Path) -> None:
    from ..bench.machine import machine_line  # noqa: PLC0415
    from ..bench.table import printed  # noqa: PLC0415

    console = Console()
    for table in printed(records):
        console.print(table)
    console.print(machine_line(records[-1].origin.machine), markup=False, highlight=False)
    written = printable(f"written: {out / _RESULTS}, results.csv, results.md")
    console.print(written, markup=False, highlight=False, soft_wrap=True)


def _known(option: str, given: Sequence[str] | None, known: Iterable[str], default: Sequence[str]) -> list[str]:
    """Of an option that may be given several times: the names in their known order, each once."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint=option)
    return [name for name in known if name in (given or default)]
