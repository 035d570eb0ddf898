"""``python -m benchmarks.quality``: run and report."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import exda_primitives as exda
from exda_primitives.cli.errors import errors_as_lines
from exda_primitives.workbench.shared import results

from .forms import FORMS
from .report import write_report
from .session import KIND, Session, Sources

RESULTS = Path(__file__).parents[1] / "results"

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()


class FormName(str, Enum):
    """The forms of the benchmark, see ``forms``."""

    CPU = "cpu"
    FIVE = "five"
    GPU = "gpu"
    QUIET = "quiet"
    SCRATCH = "scratch"


@app.command()
def run(
    form: Annotated[FormName, typer.Option(help="Form of the benchmark: what is trained.")],
    train: Annotated[Path, typer.Option(help="Training crops: a folder, zip or npz.", exists=True)],
    test: Annotated[Path, typer.Option(help="Test photographs: a folder, zip or npz.", exists=True)],
    minutes: Annotated[
        float, typer.Option(help="Stop at the next checkpoint after this time; by default when all is done.", min=0)
    ] = math.inf,
    out: Annotated[
        Path | None, typer.Option(help="Result file, by default the form's; runs that it holds are not repeated.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for the runs in progress.")] = Path("build/quality"),
) -> None:
    """Train and score what is missing; the same command resumes where this one stops, or helps one that is running."""
    accelerator = "gpu" if form is FormName.GPU else "cpu"
    if accelerator == "cpu":
        # Steps on the CPU are timed in process time, which adds up all threads.
        torch.set_num_threads(1)
        exda.memory.keep()
    elif not torch.cuda.is_available():
        console.print("Error: the form gpu needs a GPU, but PyTorch finds none; use --form cpu.", highlight=False)
        raise typer.Exit(1)
    out = out or RESULTS / ("quality.json" if form is FormName.CPU else f"quality_{form.value}.json")
    command = f"python -m benchmarks.quality run --form {form.value} --train {train.name} --test {test.name}"
    with errors_as_lines():
        session = Session(FORMS[form.value], Sources(train, test), out, work, accelerator, command, console)
        done = session.run_pending(60 * minutes)
        if session.result["runs"]:
            write_report(session.result, out, console)
    left = "nothing is left" if done else f"{len(session.missing())} runs are left; the same command goes on"
    console.print(left, highlight=False)


@app.command()
def report(out: Annotated[Path, typer.Option(help="Result.", exists=True)] = RESULTS / "quality.json") -> None:
    """Write a result's tables and plot again."""
    with errors_as_lines():
        write_report(results.read(out, KIND), out, console)


if __name__ == "__main__":
    app()
