"""Tables of results, as Markdown and for the terminal, and the lines on their provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .machine import machine_line
from .results import Result, Spread

if TYPE_CHECKING:
    from rich.table import Table


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns a table as lines of Markdown; a ``|`` in the rows' cells is escaped."""
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *escaped)]


def terminal_table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Returns a table for Rich's console."""
    from rich.table import Table  # noqa: PLC0415  (for printing alone)

    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def provenance_lines(result: Result) -> list[str]:
    """Returns lines of Markdown for the end of a page: the machine, and the command that reproduces the result."""
    return [machine_line(result["machine"]), "", f"Command: `{result['command']}`"]


def spread_text(of: Spread, form: str = ".2f", deviation_form: str = ".2f") -> str:
    """Returns "mean ± standard deviation (number of values)"; a single value has no deviation.

    Args:
        of: what to write.
        form: format specification of the mean.
        deviation_form: format specification of the deviation.

    Examples:
        >>> spread_text(Spread(mean=0.5, deviation=0.125, n=3))
        '0.50 ± 0.12 (3)'
    """
    deviation = "" if of.deviation is None else f" ± {of.deviation:{deviation_form}}"
    return f"{of.mean:{form}}{deviation} ({of.n})"
