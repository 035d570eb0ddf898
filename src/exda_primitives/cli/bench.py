"""``exda bench``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .measure import RESULTS, about, failed, measured, print_measured
from .mine import mine
from .names import printable

bench = typer.Typer(
    help="Time and memory of patched networks beside the originals that they came from.", no_args_is_help=True
)

bench.command()(mine)

# The most telling first.
_SIZES = {"cuda": ("1024", "256", "1000x1000", "1919x1079", "512", "2048", "3840x2160"), "cpu": ("128", "64")}
_FORMATS = {"cuda": "bf16", "cpu": "float32"}
_MODES = {"cuda": ("eager", "captured"), "cpu": ("eager",)}
_BRIEF = ("original", "fused", "fused-original")
"""Variants by default where the time is limited."""


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
        typer.Option(help="original (always), reference, torch, triton, auto, fused, fused-original; by default all."),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="eager, compiled, captured, onnxruntime; by default eager, on CUDA captured as well."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="forward (by default), training.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32, tf32, bf16, fp16; by default bf16, on the CPU float32.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="256 or 3840x2160; by default 1024, 256, 1000x1000, 1919x1079, 512, 2048, 3840x2160, on the CPU 128, "
            "64. Of an image whose sides are no multiples of 8 it is measured what exda restore pads it to."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 1,
    turns: Annotated[int, typer.Option(help="How often each case is timed.", min=1)] = 20,
    warm_up: Annotated[int, typer.Option(help="Turns before.", min=0)] = 2,
    seconds: Annotated[float, typer.Option(help="Begin no turn after so long, but never before the fifth.")] = 30,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after about so long. By default then original, fused and fused-original, forward and training.",
            min=0.1,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure. Options that name something may be given several times.

    Every case is checked before it is timed; one that does not compute what it should is not timed, and the exit code
    is then 1. A line of results is written as soon as it is known; the same command goes on where it was interrupted.

    The most telling comes first: Restormer forward at 1024 and 256 pixels, then at sizes that leave rows unaligned, the
    other networks, training; 2048 x 2048 and 3840 x 2160 last. With --minutes, what would take longer than is left, as
    far as can be told from what was measured, is left for the next call.
    """
    from ..workbench.bench import cases, networks  # noqa: PLC0415
    from ..workbench.bench.budget import Budget  # noqa: PLC0415
    from ..workbench.bench.harness import Effort  # noqa: PLC0415
    from ..workbench.bench.precision import PRECISIONS  # noqa: PLC0415
    from ..workbench.bench.record import read, same_machine  # noqa: PLC0415
    from .devices import named_device  # noqa: PLC0415

    where = named_device(device)
    kind = where.type
    formats = _known("--precision", precision, PRECISIONS, (_FORMATS[kind],))
    names = _known("--backbone", backbone, networks.BACKBONES, networks.NAMED)
    tasks = _known("--task", task, cases.TASKS, (cases.FORWARD,) if minutes is None else cases.TASKS)
    variants = _known("--variant", variant, cases.VARIANTS, cases.VARIANTS if minutes is None else _BRIEF)
    modes = _known("--mode", mode, cases.MODES, _MODES[kind])
    sizes = _padded(size or _SIZES[kind])
    work = [
        (comparison, cases.cases_of(comparison, variants, modes))
        for comparison in cases.comparisons(names, tasks, formats, batch, sizes)
    ]
    file = out / RESULTS
    records = read(file) if file.exists() else []
    same_machine(records, about(where), file)
    budget = Budget() if minutes is None else Budget(60 * minutes)
    left = measured(work, records, where, out, Effort(turns, warm_up, seconds), budget)
    print_measured(records, left, out, "the same command goes on there")
    if failed(records):
        raise typer.Exit(1)


@bench.command()
def plot(
    results: Annotated[list[Path], typer.Argument(help="Folders that exda bench run wrote, or files in them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the images; by default that of the first results.", file_okay=False),
    ] = None,
) -> None:
    """Draw time, memory and ratio against pixels, an image for each network, task, number format and batch."""
    from ..workbench.bench.plots import plot as draw  # noqa: PLC0415
    from ..workbench.bench.record import read  # noqa: PLC0415

    files = [path / RESULTS if path.is_dir() else path for path in results]
    written = draw([record for file in files for record in read(file)], out or files[0].parent)
    console = Console()
    for path in written:
        console.print(printable(f"written: {path}"), markup=False, highlight=False, soft_wrap=True)
    if not written:
        console.print("nothing in these results was timed", highlight=False)
        raise typer.Exit(1)


def _padded(given: Sequence[str]) -> list[tuple[int, int]]:
    """Sizes that the networks take, each once; of those that they do not, it is said what is measured instead."""
    from ..workbench.bench.cases import padded, parse_size, size_text  # noqa: PLC0415

    sizes = [parse_size(each) for each in given]
    for size in sizes:
        if padded(size) != size:
            said = f"{size_text(size)}: measured as {size_text(padded(size))}, which exda restore pads it to"
            Console().print(said, highlight=False)
    return list(dict.fromkeys(map(padded, sizes)))


def _known(option: str, given: Sequence[str] | None, known: Iterable[str], default: Sequence[str]) -> list[str]:
    """Of an option that may be given several times: the names in their known order, each once."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint=option)
    return [name for name in known if name in (given or default)]
