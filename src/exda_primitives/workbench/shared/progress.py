"""The bar that says how much of the work is done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_on(console: Console, *, counted: bool = False, shown: bool = True) -> Progress:
    """Description, bar, what is done, time taken and time that remains, on a console; to be entered.

    Args:
        console: where it is shown.
        counted: say how many of how many are done, instead of the share in per cent.
        shown: False for a bar that never appears.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
        console=console,
        disable=not shown,
    )
