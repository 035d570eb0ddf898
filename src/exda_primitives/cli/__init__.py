"""The command line: ``exda``. One file per command; what a command needs is imported when it runs."""

from __future__ import annotations

import typer

from .bench import bench
from .demo import demo
from .diagnose import diagnose
from .evaluate import evaluate
from .info import info
from .inspect import inspect
from .plan import plan
from .restore import restore
from .train import train

app = typer.Typer(help="Attention primitives for image restoration.", no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Attention primitives for image restoration."""


app.add_typer(bench, name="bench")
app.add_typer(diagnose, name="diagnose")
app.command()(demo)
app.command()(evaluate)
app.command()(info)
app.command()(inspect)
app.command()(plan)
app.command()(restore)
app.command()(train)
