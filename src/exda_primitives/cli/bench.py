"""``exda bench``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .measure import RESULTS, about, failed, measure, print_results
from .mine import mine
from .names import known_names, printable

bench = typer.Typer(help="Time and memory of patched networks, compared with the originals.", no_args_is_help=True)

bench.command()(mine)

# Defaults by device. The most telling sizes come first, because --minutes may leave out the last.
_SIZES = {"cuda": ("1024", "256", "1000x1000", "1919x1079", "512", "2048", "3840x2160"), "cpu": ("128", "64")}
_FORMATS = {"cuda": "bf16", "cpu": "float32"}
_MODES = {"cuda": ("eager", "captured"), "cpu": ("eager",)}
_BRIEF = ("original", "fused", "fused-original")
"""Default variants if ``--minutes`` is given."""


@bench.command()
def run(
    out: Annotated[
        Path, typer.Option(help="Folder for the results; those that are in it are not measured again.", file_okay=False)
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
        typer.Option(help="eager, compiled, captured, onnxruntime, openvino; by default eager, on CUDA also captured."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="forward (by default), training.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32, tf32, bf16, fp16; by default bf16, on the CPU float32.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="256 or 3840x2160; by default 1024, 256, 1000x1000, 1919x1079, 512, 2048, 3840x2160, on the CPU 128, "
            "64. A size whose sides are no multiples of 8 is measured as the one to which exda restore pads it."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 1,
    turns: Annotated[int, typer.Option(help="How often each case is timed.", min=1)] = 20,
    warm_up: Annotated[int, typer.Option(help="Turns before the timed ones.", min=0)] = 2,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds after which no further turn of a comparison begins, once there are enough for percentiles."
        ),
    ] = 30,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after about so many minutes. The defaults are then the variants original, fused and "
            "fused-original, and the tasks forward and training.",
            min=0.1,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure. Options that take names may be given several times.

    Every case is checked before it is timed; if one computes a wrong result, it is not timed and the exit code is 1.
    Each result is written as soon as it is known, and the same command continues after an interruption.

    The most telling comparisons come first: Restormer forward at 1024 and 256 pixels, then at sizes that leave rows
    unaligned, the other networks, training; 2048 x 2048 and 3840 x 2160 last. With --minutes, a comparison that would
    take longer than the time left, estimated from those measured so far, is left for the next call.
    """
    from ..workbench.bench import cases, networks  # noqa: PLC0415
    from ..workbench.bench.budget import Budget  # noqa: PLC0415
    from ..workbench.bench.harness import Effort  # noqa: PLC0415
    from ..workbench.bench.precision import PRECISIONS  # noqa: PLC0415
    from ..workbench.bench.record import read, same_machine  # noqa: PLC0415
    from .devices import named_device  # noqa: PLC0415

    where = named_device(device)
    kind = where.type
    formats = _chosen("--precision", precision, PRECISIONS, (_FORMATS[kind],))
    names = _chosen("--backbone", backbone, networks.BACKBONES, networks.NAMED)
    tasks = _chosen("--task", task, cases.TASKS, (cases.FORWARD,) if minutes is None else cases.TASKS)
    variants = _chosen("--variant", variant, cases.VARIANTS, cases.VARIANTS if minutes is None else _BRIEF)
    modes = _chosen("--mode", mode, cases.MODES, _MODES[kind])
    sizes = _padded(size or _SIZES[kind])
    work = [
        (comparison, cases.cases_of(comparison, variants, modes))
        for comparison in cases.comparisons(names, tasks, formats, batch, sizes)
    ]
    file = out / RESULTS
    records = read(file) if file.exists() else []
    same_machine(records, about(where), file)
    budget = Budget() if minutes is None else Budget(60 * minutes)
    left = measure(work, records, where, out, Effort(turns, warm_up, seconds), budget)
    print_results(records, left, out, "the same command goes on there")
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
    """Plot time, memory and ratio against pixels: one image per network, task, number format and batch size."""
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
    """Returns the sizes, each once, padded to what the networks take, and prints which were padded."""
    from ..workbench.bench.cases import padded, parse_size, size_text  # noqa: PLC0415

    sizes = [parse_size(each) for each in given]
    for size in sizes:
        if padded(size) != size:
            note = f"{size_text(size)}: measured as {size_text(padded(size))}, which exda restore pads it to"
            Console().print(note, highlight=False)
    return list(dict.fromkeys(map(padded, sizes)))


def _chosen(option: str, given: Sequence[str] | None, known: Iterable[str], default: Sequence[str]) -> list[str]:
    """Returns the names given to an option (or the default), each once, in the order of ``known``."""
    return known_names(option, given or default, known)
