"""A result as tables in Markdown and as a picture, beside its file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from exda_primitives.results import Result


def write_report(result: Result, path: Path, console: Console) -> None:
    """Writes ``.md`` and ``.png`` beside the result's file and prints the former."""
