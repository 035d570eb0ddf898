"""``exda adapt``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .command import command_line
from .networks import HELP, checkpoint_file

if TYPE_CHECKING:
    from ..workbench.adaptation import Adapted


def adapt(
    checkpoint: Annotated[str, typer.Argument(help=f"Weights of the trained network: {HELP}.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted one goes on.", file_okay=False)],
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two folders, degraded and clean; the two images of a pair have the same name."),
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Clean images to degrade: a folder, a zip, or an npz of arrays.")
    ] = None,
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            help="How to degrade --clean: noise25, blur, low, haze, rain, snow, low_haze, ...; may be given several "
            "times."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="What is trained: lora (LoRA in all layers), exda (primitives in all attentions), both."),
    ] = "lora",
    minutes: Annotated[float, typer.Option(help="Time for the training and its learning rate's search.")] = 30.0,
    held_out: Annotated[
        int | None,
        typer.Option(help="Images that are restored and not trained on; by default a fifth, at most 16.", min=1),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Sets a value of the training configuration, as for exda train: recipe.steps=1500 (in place of "
            "--minutes), data.patch=128, lora.rank=16. May be given several times.",
        ),
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
) -> None:
    """Teach a trained network a new degradation; the network's own weights stay as they are.

    The command writes patch.safetensors for exda restore --patch, a table of before and after on images that were held
    out (result.json, adapt.md), and a sheet of them (before_after.png). Ctrl-C and SIGTERM end the training with a
    checkpoint, from which the same command continues.
    """
    from ..errors import StoppedError  # noqa: PLC0415

    if (pairs is None) == (clean is None):
        raise typer.BadParameter("give one of both", param_hint="--pairs, --clean")
    if bool(degrade) != (clean is not None):
        raise typer.BadParameter("--clean and --degrade go together", param_hint="--degrade")
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        from ..workbench.adaptation import Asked, prepare  # noqa: PLC0415
        from ..workbench.adaptation import adapt as run  # noqa: PLC0415

        degraded, images = pairs or (None, clean)
        assert images is not None
        asked = Asked(
            checkpoint=checkpoint_file(checkpoint),
            clean=images,
            degradations=tuple(degrade or ()),
            degraded=degraded,
            method=method,
            minutes=minutes,
            held_out=held_out,
            changes=tuple(change or ()),
        )
        with console.status("checking the network and every image"):
            adaptation = prepare(asked, out, accelerator=accelerator)
    except KeyboardInterrupt:
        raise StoppedError("stopped before the first step; nothing was written.", signal.SIGINT) from None
    for note in adaptation.notes:
        say(note)
    _print(run(adaptation, command=command_line(), say=say), checkpoint, console)


def _print(adapted: Adapted, checkpoint: str, console: Console) -> None:
    from ..workbench.adaptation.report import printed, sentences  # noqa: PLC0415

    console.print(printed(adapted.result))
    folder = adapted.patch.parent
    for line in (
        *sentences(adapted.result),
        f"written: {adapted.patch}, adapt.md, result.json, {adapted.sheet.name}; the training is in {folder / 'run'}",
        f"to use it: exda restore INPUT OUTPUT --checkpoint {checkpoint} --patch {adapted.patch}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
