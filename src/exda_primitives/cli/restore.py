"""``exda restore``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..workbench.shared.progress import progress_on
from .devices import DEVICES, named_device
from .errors import stop_on_signal
from .images import print_left_out
from .names import known_names, printable
from .networks import (
    HELP,
    AnyHost,
    Ignore,
    ParamKey,
    PatchedWith,
    PatchFile,
    Reading,
    checkpoint_file,
    network_of,
    restorer_of,
)
from .source import Adapters, run_adapters

if TYPE_CHECKING:
    from ..workbench.restoration.files import Done, Job, Skipped
    from ..workbench.restoration.tiled import TiledRestorer


_TILED = (
    "Tiled: each tile is all that the model sees at a time, so its attention and tokens are computed from the tile, "
    "and the result differs from that of the whole image."
)
_LARGE = 512
"""Side in pixels above which the side of tiles is worth a comparison: few networks are trained on larger patches."""
_SMALLER = (
    "A network that was trained on small patches may restore large images better in tiles, as those in haze, or worse, "
    "as those with rain: compare --tile 256 with the whole image, or measure by exda evaluate --tile."
)
_SORTED = (
    "This network sorts pixels by their values: tiling, like any rounding, may swap nearly equal ones, so that its "
    "tiles differ from the whole image by more than those of other networks."
)


def restore(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Image, or folder of images.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Image or folder to write.")],
    checkpoint: Annotated[str | None, typer.Option(help=f"Weights of the model: {HELP}.")] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --checkpoint: a file that exda export wrote, run by onnxruntime, by default in tiles of "
            "512 pixels.",
            dir_okay=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The network's name; auto: as the checkpoint says.")] = "auto",
    patch: PatchFile = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of the tiles in pixels; by default as large as memory allows. A network that was trained on "
            "small patches may restore better in small tiles.",
            min=1,
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Pixels that tiles share; by default 128 to 256, and more if a seam would be visible.", min=1
        ),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB that the process may use; by default most of what is free.", min=0.1)
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Compute in 16 bits (float16; on the CPU bfloat16).")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; with --onnx, auto: what onnxruntime has.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    any_host: AnyHost = False,
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Restore photographs of any size: PNG, JPEG, TIFF, WebP; 8 or 16 bits; ICC profile, EXIF, XMP and text are kept.

    An image that does not fit into memory is restored in overlapping tiles that are blended. The model then sees one
    tile at a time: channel attention and global tokens are computed from the tile, not from the image. The largest
    step that blending adds between neighbouring pixels is measured and printed.

    An image that cannot be restored is skipped, the reason is printed, and the exit code is 1.
    """
    # Imported here because --help has to be quick. None of them imports torch: --onnx works without it.
    from ..workbench.restoration.files import Done, restore_files, work_for  # noqa: PLC0415
    from ..workbench.shared.packages import psutil, pyvips  # noqa: PLC0415

    console = Console()
    _check_source(
        checkpoint,
        onnx,
        {
            "--model": model != "auto",
            "--patch": patch,
            "--memory": memory,
            "--half": half,
            "--any-host": any_host,
            "--param-key": param_key,
            "--patched-with": patched_with,
            "--ignore": ignore,
        },
    )
    work = work_for(source, target)
    run_adapters(adapter)
    reading = Reading(param_key, ignore, patched_with)
    # If one of these packages is missing, fail now, not after reading the checkpoint or at the first image.
    pyvips()
    restorer: TiledRestorer
    if onnx is not None:
        from ..workbench.restoration.onnx import OnnxRestorer  # noqa: PLC0415

        known_names("--device", [device], DEVICES)
        restorer = OnnxRestorer(onnx, device, tile=tile, overlap=overlap)
    else:
        psutil()
        where = named_device(device)
        net = network_of(checkpoint_file(str(checkpoint)), reading, model, patch, any_host=any_host)
        restorer = restorer_of(net, where, half=half, tile=tile, overlap=overlap, memory=memory)
    for why, names in work.left_out.items():
        print_left_out(why, names, console)
    results: list[Done | Skipped] = list(work.skipped)
    # Progress is counted in bytes of the files, the best guess of the time that an image takes before it is opened.
    sizes = [_size(job) for job in work.jobs]

    def summary() -> str:
        written = sum(isinstance(result, Done) for result in results)
        return f"{written} of {len(work.jobs)} images were written, none in part"

    with stop_on_signal(summary):
        try:
            with progress_on(console) as progress:
                task = progress.add_task(_title(work.jobs, 0), total=sum(sizes))

                def on_tile(index: int, done: int, total: int) -> None:
                    tiles = f", tile {done} of {total}" if total > 1 else ""
                    completed = sum(sizes[:index]) + sizes[index] * done / total
                    progress.update(task, description=_title(work.jobs, index) + tiles, completed=completed)

                restored = restore_files(restorer, work.jobs, overwrite=overwrite, progress=on_tile)
                for index, result in enumerate(restored, 1):
                    results.append(result)
                    progress.update(task, description=_title(work.jobs, index), completed=sum(sizes[:index]))
        finally:
            # After an interruption, too: which images were skipped, and why, is printed nowhere else.
            _print(results, restorer, console)
    if not all(isinstance(result, Done) for result in results):
        raise typer.Exit(1)


def _check_source(checkpoint: str | None, onnx: Path | None, of_checkpoints: Mapping[str, object]) -> None:
    if (checkpoint is None) == (onnx is None):
        raise typer.BadParameter("give one of both", param_hint="--checkpoint, --onnx")
    given = [option for option, value in of_checkpoints.items() if value]
    if onnx is not None and given:
        raise typer.BadParameter(
            f"{', '.join(given)}: only for checkpoints; an ONNX file is run as it is", param_hint="--onnx"
        )


def _size(job: Job) -> int:
    try:
        return job.source.stat().st_size
    except OSError:
        return 0


def _title(jobs: Sequence[Job], index: int) -> str:
    if index == len(jobs):
        return "done"
    return escape(printable(f"{index + 1} of {len(jobs)}: {jobs[index].source.name}"))


def _print(results: Sequence[Done | Skipped], restorer: TiledRestorer, console: Console) -> None:
    from ..workbench.restoration.files import Done  # noqa: PLC0415

    restored = [result for result in results if isinstance(result, Done)]
    table = Table("image", "size", "tile", "overlap", "largest seam (1/255)")
    for done in restored:
        height, width = done.size
        tile, overlap, seam = done.restored.tile, done.restored.overlap, done.restored.seam
        figures = (str(tile), str(overlap), f"{seam.largest:.3f}") if seam else ("whole", "", "none")
        table.add_row(escape(printable(done.job.source)), f"{width} x {height}", *figures)
    if restored:
        console.print(table)
    if any(done.restored.seam for done in restored):
        console.print(_TILED, highlight=False)
        if restorer.sorts:
            console.print(_SORTED, highlight=False)
    if any((done.restored.tile or max(done.size)) > _LARGE for done in restored):
        console.print(_SMALLER, highlight=False)
    for result in results:
        name = escape(printable(result.job.source))
        for line in _remarks(result):
            console.print(f"{name}: {line}", highlight=False, soft_wrap=True)
    console.print(f"{len(restored)} restored, {len(results) - len(restored)} skipped", highlight=False)


def _remarks(result: Done | Skipped) -> Iterator[str]:
    """Yields the lines to print about an image, in Rich's markup."""
    from ..workbench.restoration.files import Skipped  # noqa: PLC0415

    if isinstance(result, Skipped):
        yield f"[red]skipped:[/] {escape(printable(result.reason))}"
        return
    seam = result.restored.seam
    if seam and seam.largest >= _seam_limit():
        yield (
            f"[yellow]tiles may show:[/] the largest seam is {seam.largest:.3f}/255, not below {_seam_limit()}; "
            "larger tiles (--tile, --memory) or a larger --overlap make it smaller"
        )
    for note in result.notes:
        yield escape(printable(note))


def _seam_limit() -> float:
    from ..workbench.restoration.tiled import SEAM_LIMIT  # noqa: PLC0415

    return SEAM_LIMIT
