"""The library's own ``exda bench run``, into a folder ``bench`` beside the results."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from ..launches import Recording
from ..stage import Run

COMMAND = (
    *("bench", "run", "--backbone", "restormer", "--size", "1024", "--variant", "fused"),
    *("--mode", "eager", "--mode", "captured", "--turns", "10", "--seconds", "10"),
)


def options(parser: argparse.ArgumentParser) -> None:
    pass


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    return ()


def run(run: Run, options: argparse.Namespace) -> None:
    # Here alone Typer and Rich are needed.
    from exda_primitives.cli import app  # noqa: PLC0415

    app([*COMMAND, "--out", str(run.folder / "bench")], standalone_mode=False)
    run.rows.write("harness", folder="bench")
