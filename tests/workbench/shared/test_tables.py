"""Tables of results."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from exda_primitives.workbench.shared.results import Spread
from exda_primitives.workbench.shared.tables import (
    markdown_page,
    markdown_table,
    provenance,
    settings_text,
    spread_text,
    terminal_table,
)


def test_markdown_escapes_bars_inside_cells() -> None:
    assert markdown_table(["name", "|x|"], [["a|b", "1"]]) == ["| name | |x| |", "| --- | --- |", "| a\\|b | 1 |"]


def test_a_page_separates_its_blocks_by_one_empty_line() -> None:
    page = markdown_page("Speed", "Times in ms.", [], ["| a |", "| --- |"], "", "The end.")
    assert page == "# Speed\n\nTimes in ms.\n\n| a |\n| --- |\n\nThe end.\n"


def test_provenance_names_the_machine_its_triton_and_the_command() -> None:
    machine = {"cpu": "C", "cores": 2, "threads": 1, "torch": "2.9", "python": "3.11", "commit": "abc", "triton": "3.6"}
    line = "C, 2 cores, 1 threads; torch 2.9, Python 3.11; commit abc. Triton 3.6."
    assert provenance({"machine": machine, "command": "exda x"}) == f"{line}\n\nCommand: `exda x`"


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
