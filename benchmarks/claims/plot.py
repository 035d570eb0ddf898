"""Draws gains with their intervals as an SVG that has the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import chain

from exda_primitives.workbench.shared.plotting import BLUE, VERMILION

from .claim import Claim, Finding, Row
from .verdicts import Verdict

LABELS, SCALE, NUMBERS, LINE, TOP = 580, 380, 240, 26, 56
COLOURS = {
    Verdict.REPRODUCED: BLUE,
    Verdict.INCONCLUSIVE: "#777777",
    Verdict.REFUTED: VERMILION,
    Verdict.NOT_MEASURED: "#777777",
}


def svg(claim: Claim, finding: Finding) -> str:
    """Draws one line per condition: the gain as a dot on its interval; vertical lines mark 0 and the paper's figure."""
    x = placed([*ends_of(finding.rows), claim.figure or 0], LABELS)
    bottom = TOP + LINE * len(finding.rows)
    marks = [line(x(0), TOP - 10, x(0), bottom, "#000000"), text(x(0), TOP - 16, "no difference", "middle")]
    if claim.figure is not None:
        marks += [line(x(claim.figure), TOP - 28, x(claim.figure), bottom, "#000000", dashed=True)]
        marks += [text(x(claim.figure), TOP - 34, f"paper {claim.unit.number(claim.figure)}", "middle")]
    for index, row in enumerate(finding.rows):
        y = TOP + LINE * index + LINE // 2
        colour = COLOURS[row.effect]
        if math.isfinite(row.gain.high):
            marks.append(line(x(row.gain.low), y, x(row.gain.high), y, colour))
        marks += [
            text("10", y + 4, row.condition),
            f'<circle cx="{x(row.gain.mean)}" cy="{y}" r="4" fill="{colour}"/>',
            text(str(LABELS + SCALE + 10), y + 4, claim.unit.interval(row.gain)),
        ]
    marks.append(text(str(LABELS + SCALE // 2), bottom + 20, claim.unit.title, "middle"))
    width, height = LABELS + SCALE + NUMBERS, bottom + 32
    return drawing(width, height, marks)


def ends_of(rows: Sequence[Row]) -> list[float]:
    """Returns the finite means and interval ends of rows, which the scale has to hold."""
    return [value for row in rows for value in row.gain[:3] if math.isfinite(value)]


def placed(values: Sequence[float], left: int) -> Callable[[float], str]:
    """Returns a function from a value to its x coordinate as text, on a scale that holds 0 and all of ``values``.

    Args:
        values: gains to place.
        left: x coordinate at which the scale begins, in pixels.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    reach = (high - low) or 1.0
    # A margin of 5 % on each side; one decimal, so that rounding of the last bits does not change the file.
    return lambda value: f"{left + SCALE * (0.05 + 0.9 * (value - low) / reach):.1f}"


def drawing(width: int, height: int, marks: Iterable[str]) -> str:
    """Returns an SVG document with the marks on a white background; sizes in pixels."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join(chain([head, background], marks, ["</svg>"])) + "\n"


def line(x1: str, y1: int, x2: str, y2: int, colour: str, *, dashed: bool = False) -> str:
    """Returns an SVG line from (x1, y1) to (x2, y2); x coordinates come as text from ``placed``."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="2"{dashes}/>'


def text(x: str, y: int, text: str, anchor: str = "start") -> str:
    """Returns an SVG text element; ``anchor`` is its ``text-anchor``."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
