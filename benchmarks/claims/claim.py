"""A claim of the paper, and what is known of it here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .verdicts import LEAST, Gain, Verdict, together


@dataclass(frozen=True)
class Unit:
    """How gains are printed.

    Attributes:
        title: of a column of gains.
        number: a gain as text.
        suffix: to the number, where no title says what it is.
    """

    title: str
    number: Callable[[float], str]
    suffix: str = ""

    def interval(self, of: Gain) -> str:
        """A gain with its interval; of a single pair there is none."""
        mean = self.number(of.mean)
        if math.isinf(of.high):
            return f"{mean} (no interval)"
        return f"{mean} ({self.number(of.low)} to {self.number(of.high)})"


DECIBEL = Unit("gain (dB)", lambda value: f"{value:+.2f}", " dB")
MORE = Unit("more time", lambda value: f"{100 * math.expm1(value):+.1f} %", " time")
POINTS = Unit("gain", lambda value: f"{value:+.3f}")


def times(title: str) -> Unit:
    """Of gains that are logarithms of ratios."""
    return Unit(title, lambda value: f"{_plainly(math.exp(value))}x", " the error")


def _plainly(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """What was found under one condition.

    Attributes:
        condition: in words.
        cells: figures as text, under the finding's ``head``.
        gain: what the plot and the summary show.
        effect: verdict on the direction.
        size: verdict on the paper's figure; None where there is no figure.
    """

    condition: str
    cells: Sequence[str]
    gain: Gain
    effect: Verdict
    size: Verdict | None = None


@dataclass(frozen=True)
class Source:
    """Where figures come from.

    Attributes:
        file: relative to the folder of results.
        seeds: in words.
        machine: and commit, a sentence.
        command: that wrote the file.
    """

    file: str
    seeds: str
    machine: str
    command: str


@dataclass(frozen=True)
class Finding:
    """What the files say of a claim.

    Attributes:
        head: titles of the rows' cells.
        rows: one for each condition.
        budget: what was spent, in words.
        sources: files.
        notes: what a reader has to know of the figures, paragraphs.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    budget: str
    sources: Sequence[Source]
    notes: Sequence[str] = ()

    @property
    def counted(self) -> Sequence[Row]:
        """The rows that decide."""
        return [row for row in self.rows if row.gain.repeats >= LEAST] or self.rows

    @property
    def effect(self) -> Verdict:
        """Of all conditions together."""
        return together(row.effect for row in self.counted)

    @property
    def size(self) -> Verdict | None:
        """Likewise; None where the paper gives no figure."""
        sizes = [row.size for row in self.counted if row.size is not None]
        return together(sizes) if sizes else None


@dataclass(frozen=True)
class Claim:
    """What the paper says, and how to find out.

    Attributes:
        name: of the plot.
        title: in words.
        paper: what the paper says, with its figure.
        figure: the same as a gain, None where there is none that could be compared.
        unit: of the gains.
        rule: by which a condition gets its verdict.
        missing: what to run where nothing was measured.
        measure: reads the folder of results; None where it holds nothing on the claim. Raises ConfigError for a file
            that is damaged or of another version.
    """

    name: str
    title: str
    paper: str
    figure: float | None
    unit: Unit
    rule: str
    missing: str
    measure: Callable[[Path], Finding | None]
