"""Prints a report on a terminal or as text: a heading, a table, and lines below it."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Row(NamedTuple):
    """One row of the table, as text: consecutive attentions of one kind."""

    module: str
    n: str
    family: str
    dim: str
    heads: str
    stage: str
    parameters: str
    macs: str


class Printed(NamedTuple):
    """Everything that is printed of a report."""

    heading: str
    rows: Sequence[Row]
    lines: Sequence[str]


def as_text(said: Printed, width: int = 110) -> str:
    """Returns text of at most ``width`` columns, without colour."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    print_on(console, said)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()


def print_on(console: Console, said: Printed) -> None:
    """Prints the heading, the table if there are rows, and the lines."""
    console.print(said.heading, markup=False, highlight=False)
    if said.rows:
        console.print(_table(said.rows))
    for line in said.lines:
        console.print(line, markup=False, highlight=False)


def _table(rows: Sequence[Row]) -> Table:
    # No frame and little padding: the names of the usual backbones fit into 80 columns.
    table = Table(
        *("module", "n", "family", "dim", "heads", "stage", "parameters", "MACs/px"), box=None, padding=(0, 1, 0, 0)
    )
    table.columns[0].overflow = "fold"
    for column in (1, 3, 4, 6, 7):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(*map(Text, row))
    return table
