"""The command line ``exda``. Each command is one file and imports PyTorch only when it runs, so that --help is fast."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import memory
from .adapt import adapt
from .bench import bench
from .demo import demo
from .diagnose import diagnose
from .errors import PlainErrorGroup
from .evaluate import evaluate
from .export import export
from .info import info
from .inspect import inspect
from .models import models
from .plan import plan
from .restore import restore
from .train import train

app = typer.Typer(
    help="Attention primitives for image restoration.", cls=PlainErrorGroup, no_args_is_help=True, add_completion=False
)


def _print_version(asked: bool) -> None:
    from .. import __version__  # noqa: PLC0415

    if asked:
        typer.echo(f"exda_primitives {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Attention primitives for image restoration."""
    # Before any command: on large images glibc's returning of freed maps to the system takes up to half of the time.
    memory.keep()


app.add_typer(bench, name="bench")
app.add_typer(diagnose, name="diagnose")
app.command()(adapt)
app.command()(demo)
app.command()(evaluate)
app.command()(export)
app.command()(info)
app.command()(inspect)
app.command()(models)
app.command()(plan)
app.command()(restore)
app.command()(train)
