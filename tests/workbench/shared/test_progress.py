"""The progress bar."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from exda_primitives.workbench.shared.progress import progress_on


@pytest.mark.parametrize(("counted", "done"), [(False, "50%"), (True, "2/4")])
def test_progress_is_shown_as_a_share_or_a_count(counted: bool, done: str) -> None:
    console = Console(file=StringIO(), width=80)
    with progress_on(console, counted=counted) as progress:
        progress.add_task("restoring", total=4, completed=2)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "restoring" in shown
    assert done in shown


def test_a_hidden_bar_prints_nothing() -> None:
    console = Console(file=StringIO(), width=80)
    with progress_on(console, shown=False) as progress:
        progress.add_task("restoring", total=4)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
