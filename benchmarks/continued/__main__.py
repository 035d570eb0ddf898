"""``python -m benchmarks.continued``: run and report."""

from __future__ import annotations

import math
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import exda_primitives as exda
from benchmarks.quality.session import Sources
from exda_primitives.cli.errors import errors_as_lines
from exda_primitives.workbench.shared import results

from .forms import FORMS, RESULTS
from .host import host_weights
from .report import write_report
from .session import KIND, ContinuedSession

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()


class FormName(str, Enum):
    """A form of the benchmark."""

    CONTINUED = "continued"
    ADAPTATION = "adaptation"
    ADAPTATION_LONG = "adaptation_long"
    CONTINUED_GPU = "continued_gpu"
    ADAPTATION_GPU = "adaptation_gpu"


@app.command()
def run(
    form: Annotated[FormName, typer.Option(help="What is trained, and from which host.")],
    train: Annotated[Path, typer.Option(help="Training crops: a folder, zip or npz.", exists=True)],
    test: Annotated[Path, typer.Option(help="Test photographs: a folder, zip or npz.", exists=True)],
    minutes: Annotated[
        float, typer.Option(help="Stop at the next checkpoint after this time; by default when all is done.", min=0)
    ] = math.inf,
    out: Annotated[
        Path | None, typer.Option(help="Result file, by default the form's; runs that it holds are not repeated.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for the runs in progress and the host's weights.")] = Path(
        "build/continued"
    ),
) -> None:
    """Train and score what is missing; the same command resumes where this one stops, or helps one that is running."""
    end = time.monotonic() + 60 * minutes
    told, out = FORMS[form.value], out or RESULTS / f"{form.value}.json"
    if told.accelerator == "cpu":
        # Trainings on the CPU are timed in process time, which adds up all threads.
        torch.set_num_threads(1)
        exda.memory.keep()
    elif not torch.cuda.is_available():
        console.print(f"Error: the form {told.name} needs a GPU, but PyTorch finds none.", highlight=False)
        raise typer.Exit(1)
    command = f"python -m benchmarks.continued run --form {form.value} --train {train.name} --test {test.name}"
    with errors_as_lines():
        host = host_weights(told, str(train), work, told.accelerator, lambda: time.monotonic() >= end, command)
        if host is None:
            console.print("the host is not trained yet; the same command goes on", highlight=False)
            return
        session = ContinuedSession(told, host, Sources(train, test), out, work, told.accelerator, command, console)
        done = session.run_pending(end - time.monotonic())
        if session.result["runs"]:
            write_report(session.result, out, console)
    left = "nothing is left" if done else f"{len(session.missing())} runs are left; the same command goes on"
    console.print(left, highlight=False)


@app.command()
def report(out: Annotated[Path, typer.Option(help="Result.", exists=True)]) -> None:
    """Write a result's tables and plot again."""
    with errors_as_lines():
        write_report(results.read(out, KIND), out, console)


if __name__ == "__main__":
    app()
