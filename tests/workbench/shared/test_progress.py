"""The bar of progress."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from exda_primitives.workbench.shared.progress import progress_on


@pytest.mark.parametrize(("counted", "done"), [(False, "50%"), (True, "2/4")])
def test_what_is_done_is_a_share_or_a_number(counted: bool, done: str) -> None:
    console = Console(file=StringIO(), width=80)
    with progress_on(console, counted=counted) as progress:
        progress.add_task("restoring", total=4, completed=2)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "restoring" in shown
    assert done in shown


def test_a_bar_that_is_not_shown() -> None:
    console = Console(file=StringIO(), width=80)
    with progress_on(console, shown=False) as progress:
        progress.add_task("restoring", total=4)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
