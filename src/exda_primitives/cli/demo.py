"""``exda demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..workbench.shared.progress import progress_on
from .names import printable


def demo(
    out: Annotated[Path, typer.Option(help="Image to write.", dir_okay=False)] = Path("exda-demo.png"),
    seed: Annotated[int, typer.Option(help="Seed of the degradation.", min=0)] = 0,
) -> None:
    """Degrade a photograph, restore it with a small Restormer, patch the network, restore again, unpatch."""
    # Imported here because --help has to work without importing torch and PIL.
    from PIL import Image  # noqa: PLC0415

    from ..workbench.demo.run import STEPS, run  # noqa: PLC0415
    from ..workbench.shared.files import check_writable  # noqa: PLC0415

    if out.suffix.lower() not in Image.registered_extensions():
        raise typer.BadParameter(
            f"{out.name!r} has no ending of an image format; write e.g. exda-demo.png", param_hint="--out"
        )
    if not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(out.parent)!r}", param_hint="--out")
    check_writable(out.absolute().parent)
    console = Console()
    with progress_on(console) as progress:
        task = progress.add_task("", total=STEPS)

        def on_step(title: str) -> None:
            progress.update(task, description=title, completed=progress.tasks[task].completed + 1)

        result = run(out, seed, on_step)
    result.report.print(console)
    console.print(f"output unchanged: max |difference| = {result.unchanged:.1e}", highlight=False)
    table = Table("", "PSNR (dB)", "SSIM")
    for title, scored in result.scores.items():
        table.add_row(title, f"{scored.psnr:.2f}", f"{scored.ssim:.4f}")
    console.print(table)
    console.print("The host and the patched model were trained equally long from the same weights.", highlight=False)
    console.print(f"unpatched: same modules, same output: {result.given_back}", highlight=False)
    console.print(printable(f"written: {result.image}"), markup=False, highlight=False, soft_wrap=True)
    if not result.given_back:
        raise typer.Exit(1)
