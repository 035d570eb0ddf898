"""``exda demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..workbench.shared.progress import progress_on
from .names import printable

if TYPE_CHECKING:
    from ..workbench.demo.run import Demo


def demo(
    out: Annotated[Path, typer.Option(help="Image to write.", dir_okay=False)] = Path("exda-demo.png"),
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Photograph of yours in place of the package's. May be given several times.", dir_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the degradations.", min=0)] = 0,
) -> None:
    """Let a small trained Restormer restore low light, which it never saw; patch it, load a small file, try again.

    The table also has the degradations that the network was trained on, before and after.
    """
    # Imported here because --help has to work without importing torch and PIL.
    from PIL import Image  # noqa: PLC0415

    from ..workbench.demo.photograph import photograph, photograph_of  # noqa: PLC0415
    from ..workbench.demo.run import run, steps  # noqa: PLC0415
    from ..workbench.shared.files import check_writable  # noqa: PLC0415

    if out.suffix.lower() not in Image.registered_extensions():
        raise typer.BadParameter(
            f"{out.name!r} has no ending of an image format; write e.g. exda-demo.png", param_hint="--out"
        )
    if not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(out.parent)!r}", param_hint="--out")
    check_writable(out.absolute().parent)
    photographs = [photograph_of(path) for path in image] if image else [photograph()]
    console = Console()
    with progress_on(console) as progress:
        task = progress.add_task("", total=steps(len(photographs)))

        def on_step(title: str) -> None:
            progress.update(task, description=title, completed=progress.tasks[task].completed + 1)

        result = run(out, photographs, seed, on_step)
    _print(result, console)
    if not result.given_back:
        raise typer.Exit(1)


def _print(result: Demo, console: Console) -> None:
    from ..workbench.demo.measured import measured, sentences  # noqa: PLC0415
    from ..workbench.demo.model import patch_file  # noqa: PLC0415

    result.report.print(console)
    size = patch_file().stat().st_size / 1000
    lines = [
        f"Patched, the network computes what it computed before: max |difference| = {result.unchanged:.1e}.",
        f"Then a file of {size:.0f} kB was loaded, trained in low light with the network's own weights frozen.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    names = list(next(iter(result.scores.values())))
    table = Table("PSNR (dB), SSIM", *names)
    for title, scores in result.scores.items():
        table.add_row(title, *(f"{scores[name].psnr:.2f}, {scores[name].ssim:.3f}" for name in names))
    console.print(table)
    for line in (
        *sentences(measured()),
        f"One image took {result.seconds:.2f} s, with fused blocks {result.fused_seconds:.2f} s.",
        f"Unpatched: the same modules, the same output to the last bit: {'yes' if result.given_back else 'NO'}.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(printable(f"written: {result.image}"), markup=False, highlight=False, soft_wrap=True)
