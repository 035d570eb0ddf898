"""Errors of the library as one plain message and a non-zero exit, instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


@contextmanager
def plainly() -> Iterator[None]:
    """Prints an :class:`ExDAError` that leaves the block, and exits with 1; any other error keeps its traceback."""
    from ..errors import ExDAError  # noqa: PLC0415

    try:
        yield
    except ExDAError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
