"""Tables of results, as Markdown and for the terminal, Markdown pages, and sentences on settings and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .machine import machine_line
from .results import Spread

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


def markdown_page(title: str, *blocks: str | Sequence[str]) -> str:
    """Returns a page of Markdown: its title, then all blocks that are not empty, with an empty line between them.

    Args:
        title: text of the first heading.
        blocks: each a paragraph or a heading, or the lines of a table or list.
    """
    texts = (block if isinstance(block, str) else "\n".join(block) for block in (f"# {title}", *blocks))
    return "\n\n".join(filter(None, texts)) + "\n"


def provenance(result: Mapping[str, Any]) -> str:
    """Returns the last two paragraphs of a page: the machine, and the command that reproduces the result."""
    return f"{machine_line(result['machine'])}\n\nCommand: `{result['command']}`"


def settings_text(of: Mapping[str, object]) -> str:
    """Returns settings in one line; lists and dicts in them are written without quotes.

    Example:
        >>> settings_text({"training_images": 8000, "rate": 0.002, "size": [28, 28], "noise": {"std": 25}})
        'training images 8000; rate 0.002; size 28, 28; noise (std 25)'
    """
    return "; ".join(f"{key.replace('_', ' ')} {_value_text(value)}" for key, value in of.items())


def _value_text(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_value_text(each)}' for key, each in value.items())})" if value else "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_value_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


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
