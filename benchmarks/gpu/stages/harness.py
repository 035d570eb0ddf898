"""Runs the library's own ``exda bench run`` into a folder ``bench`` next to the results."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from ..launches import Recording
from ..stage import Run

COMMAND = ("bench", "run", "--backbone", "restormer", "--turns", "10", "--seconds", "10")

_LEAST = 0.1
"""Smallest number of minutes that the command accepts."""


def options(parser: argparse.ArgumentParser) -> None:
    pass


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    return ()


def run(run: Run, options: argparse.Namespace) -> None:
    # Only this stage needs Typer and Rich.
    from exda_primitives.cli import app  # noqa: PLC0415

    minutes = max(run.left() / 60, _LEAST)
    app([*COMMAND, "--minutes", f"{minutes:.2f}", "--out", str(run.folder / "bench")], standalone_mode=False)
    run.rows.write("harness", folder="bench")
