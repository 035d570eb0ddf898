"""``exda train``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from .command import command_line

if TYPE_CHECKING:
    from ..workbench.shared.results import Result


def train(
    config: Annotated[Path, typer.Option(help="YAML file, see examples/train.", dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was interrupted goes on.", file_okay=False)],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Overrides a value of the file: recipe.steps=100. May be given several times."),
    ] = None,
    devices: Annotated[int, typer.Option(help="Processes, each on a device of its own.", min=1)] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Train a network, patched or not, as a configuration file says.

    Ctrl-C and SIGTERM end the training after the current step, with a checkpoint. The same command continues it bit for
    bit, or says why it cannot.
    """
    from ..errors import StoppedError  # noqa: PLC0415

    console = Console()
    try:
        from ..workbench.training import prepare, read_config  # noqa: PLC0415
        from ..workbench.training import train as run  # noqa: PLC0415

        with console.status("checking the configuration, the network and every image"):
            plan = prepare(read_config(config, change or ()), out, devices=devices, accelerator=accelerator)
        plan.print(console)
    except KeyboardInterrupt:
        raise StoppedError("stopped before the first step; nothing was written.", signal.SIGINT) from None
    if dry_run:
        return
    if plan.done:
        console.print("done before", highlight=False)
    _print(run(plan, command=command_line()), out, console)


def _print(result: Result, out: Path, console: Console) -> None:
    run = result["runs"][0]
    table = Table("step", "loss", "learning rate", "gradient norm", "PSNR (dB)", box=None, padding=(0, 2, 0, 0))
    for line in _some(run["history"]):
        psnr = "" if line["psnr"] is None else f"{line['psnr']:.2f}"
        norm = "overflow" if line["gradient_norm"] is None else f"{line['gradient_norm']:.3g}"
        table.add_row(str(line["step"]), f"{line['loss']:.5f}", f"{line['learning_rate']:.2e}", norm, psnr)
    console.print(table)
    for leg in run["legs"]:
        for reason in leg["not_bit_for_bit"]:
            console.print(f"not bit for bit after step {leg['after_step']}: {reason}", markup=False, highlight=False)
    sheet = ", validation.png" if (out / "validation.png").exists() else ""
    console.print(
        f"written: {out / 'result.json'}, weights.safetensors, history.png{sheet}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


_ROWS = 10
"""Most lines of the training history that are printed."""


def _some(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Returns at most ``_ROWS`` evenly spaced lines, always including the last."""
    every = -(-len(history) // _ROWS)
    # Reversed before and after, so that the steps are counted from the last line.
    return history[::-1][::every][::-1]
