"""The progress bar of all commands."""

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
    """Returns a progress bar, to be used with ``with``: description, bar, progress, time elapsed and remaining.

    Args:
        console: where it is shown.
        counted: show progress as "m/n" rather than in per cent.
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
