"""A report as a table for a terminal or a log."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..primitives.config import whereabouts

if TYPE_CHECKING:
    from .report import Match, Report


def render(report: Report, width: int = 110) -> str:
    """The report as text of at most ``width`` columns, without colour."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()


def print_report(report: Report, console: Console) -> None:
    """Heading, table of the matches, totals, near misses and notes."""
    verb = "replaced" if report.applied else "to replace"
    console.print(f"{report.model}: {len(report.matches)} attentions {verb}", markup=False, highlight=False)
    if report.matches:
        console.print(_table(report))
        console.print(_totals(report), markup=False, highlight=False)
    if report.multiple_of:
        console.print(f"height and width of an image: multiples of {report.multiple_of}", markup=False, highlight=False)
    for names, what in ((report.already_patched, "already patched"), (report.built_in, "built in")):
        if names:
            console.print(f"{what}: {len(names)}", markup=False, highlight=False)
    if len(set(report.configs.values())) > 1:
        for line in whereabouts(report.configs):
            console.print(f"with {line}", markup=False, highlight=False)
    for near_miss in report.near_misses:
        console.print(f"left alone: {near_miss}", markup=False, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _table(report: Report) -> Table:
    # Narrow enough for 80 columns and the names of the usual backbones.
    table = Table(
        *("module", "n", "family", "dim", "heads", "stage", "parameters", "MACs/px"), box=None, padding=(0, 1, 0, 0)
    )
    table.columns[0].overflow = "fold"
    for column in (1, 3, 4, 6, 7):
        table.columns[column].justify = "right"
    for group in report.grouped():
        first = group[0]
        table.add_row(
            Text(_span(group)),
            str(len(group)),
            Text(first.family),
            str(first.dim),
            str(first.heads),
            Text(first.stage or "-"),
            f"{sum(match.extra_parameters for match in group):,}",
            f"{sum(match.extra_macs_per_pixel for match in group):,.0f}",
        )
    return table


def _span(group: tuple[Match, ...]) -> str:
    """``encoder_level1.0.attn`` to ``encoder_level1.3.attn`` -> ``encoder_level1.{0..3}.attn``."""
    first, last = group[0].name.split("."), group[-1].name.split(".")
    return ".".join(a if a == b else f"{{{a}..{b}}}" for a, b in zip(first, last, strict=True))


def _totals(report: Report) -> str:
    total = f"{report.extra_parameters:,} new parameters"
    macs = report.extra_macs(256, 256)
    if macs is not None:
        total += f", {macs / 1e9:.2f} G more multiply-accumulates for a 256 x 256 image by the printed formulas"
    return total
