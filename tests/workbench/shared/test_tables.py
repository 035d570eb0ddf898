"""Tables of results."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from exda_primitives.workbench.shared.results import Spread
from exda_primitives.workbench.shared.tables import markdown_table, settings_text, spread_text, terminal_table


def test_markdown_escapes_bars_inside_cells() -> None:
    assert markdown_table(["name", "|x|"], [["a|b", "1"]]) == ["| name | |x| |", "| --- | --- |", "| a\\|b | 1 |"]


def test_the_terminal_shows_title_head_and_rows() -> None:
    console = Console(file=StringIO(), width=60)
    console.print(terminal_table(["network", "ms"], [["restormer", "1.5"]], "Forward pass"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(each in shown for each in ("Forward pass", "network", "restormer", "1.5"))


def test_settings_are_written_without_quotes() -> None:
    settings = {"held_out": [28, "a"], "rate": 0.0020001, "patch": None, "window": {"shape": "uniform"}, "ours": {}}
    assert settings_text(settings) == "held out 28, a; rate 0.002; patch none; window (shape uniform); ours none"


@pytest.mark.parametrize(
    ("spread", "forms", "text"),
    [
        (Spread(0.5, 0.125, 3), (), "0.50 ± 0.12 (3)"),
        (Spread(0.5, None, 1), (), "0.50 (1)"),
        (Spread(1.234e-4, 2e-5, 5), (".3g", ".1g"), "0.000123 ± 2e-05 (5)"),
    ],
)
def test_a_spread_as_text(spread: Spread, forms: tuple[str, ...], text: str) -> None:
    assert spread_text(spread, *forms) == text
