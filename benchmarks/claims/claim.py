"""The data model of the evidence page: a claim of the paper, and what was measured about it here."""

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
        title: heading of a column of gains.
        number: formats a gain.
        suffix: follows the number where no heading names the unit.
    """

    title: str
    number: Callable[[float], str]
    suffix: str = ""

    def interval(self, of: Gain) -> str:
        """Formats a gain with its interval, or with "(no interval)" for a single pair."""
        mean = self.number(of.mean)
        if math.isinf(of.high):
            return f"{mean} (no interval)"
        return f"{mean} ({self.number(of.low)} to {self.number(of.high)})"


DECIBEL = Unit("gain (dB)", lambda value: f"{value:+.2f}", " dB")
MORE = Unit("more time", lambda value: f"{100 * math.expm1(value):+.1f} %", " time")
POINTS = Unit("gain", lambda value: f"{value:+.3f}")


def times(title: str) -> Unit:
    """Returns the unit of gains that are natural logarithms of error ratios, printed as ratios."""
    return Unit(title, lambda value: f"{_plainly(math.exp(value))}x", " the error")


def _plainly(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """What was measured under one condition.

    Attributes:
        condition: its description.
        cells: formatted figures, in the order of the finding's ``head``.
        gain: what the plot and the summary show, in the claim's unit.
        effect: verdict on the direction of the effect.
        size: verdict on whether it is as large as the paper's figure; None where the paper gives none.
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
        file: path relative to the results folder.
        seeds: the seeds measured, as text.
        machine: machine, versions and commit, as one sentence.
        command: the command that wrote the file.
    """

    file: str
    seeds: str
    machine: str
    command: str


@dataclass(frozen=True)
class Finding:
    """What the result files say about a claim.

    Attributes:
        head: headings of the rows' cells.
        rows: one for each condition.
        budget: how much was trained or timed, as text.
        sources: the files that the figures come from.
        notes: paragraphs that explain the figures to the reader.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    budget: str
    sources: Sequence[Source]
    notes: Sequence[str] = ()

    @property
    def counted(self) -> Sequence[Row]:
        """The rows that decide the verdict: those with enough repeats, or all if none has enough."""
        return [row for row in self.rows if row.gain.repeats >= LEAST] or self.rows

    @property
    def effect(self) -> Verdict:
        """The verdict on the direction of the effect, over all counted conditions."""
        return together(row.effect for row in self.counted)

    @property
    def size(self) -> Verdict | None:
        """The verdict on the paper's figure, over all counted conditions; None where the paper gives no figure."""
        sizes = [row.size for row in self.counted if row.size is not None]
        return together(sizes) if sizes else None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and how it is checked.

    Attributes:
        name: unique key, and file name of the plot.
        title: the claim as a sentence.
        paper: what the paper says, with its figure; completes "The paper: ...".
        figure: the paper's figure as a gain in ``unit``; None where it gives none that can be compared.
        unit: how gains are printed.
        rule: the rule by which a condition gets its verdict, as text.
        missing: the command to run where nothing was measured.
        measure: returns what a results folder says about the claim, or None if it holds nothing on it. Raises
            ConfigError for a file that is damaged or of another version.
    """

    name: str
    title: str
    paper: str
    figure: float | None
    unit: Unit
    rule: str
    missing: str
    measure: Callable[[Path], Finding | None]
