"""The claims and what became of them, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from exda_primitives.workbench.shared.tables import markdown_table

from .claim import Claim, Finding, Row
from .groups import Found, grouped, sentence, visible_of
from .verdicts import CONFIDENCE, SIZE, TOGETHER, Verdict

PLOTS = "evidence"
"""Folder of the plots, beside the page."""

OVERVIEW = f"{PLOTS}/overview.svg"


_OVERVIEW = (
    f"![Effects with their intervals, by claim]({OVERVIEW})",
    "",
    "A line for each claim, from the lowest end of its intervals to the highest, and a dot for each condition: blue if "
    "reproduced, orange if refuted, grey if inconclusive. Each panel has a scale of its own.",
    "",
)


def page(found: Sequence[Found], command: str) -> str:
    """Everything.

    Args:
        found: claims in the order of the page.
        command: that writes the page.
    """
    lines = [
        "# The paper's claims, and what became of them here",
        "",
        "The paper is ExDA, \u201cRethinking Expressivity and Degradation-Awareness in Attention for All-in-One Blind "
        f"Image Restoration\u201d, ICLR 2026 ([OpenReview]({PAPER})). It published no code; all that follows is ours.",
        "",
        "## In short",
        "",
        *(f"- {sentence(*group)}" for group in grouped(found)),
        "",
        "Inconclusive: the figures do not separate it from nothing. An effect that would have been seen is one that so "
        "many repeats find four times in five.",
        "",
        *(_OVERVIEW if any(finding for _, finding in found) else ()),
        "## Claim by claim",
        "",
        *markdown_table(_SUMMARY, (_summary(*each) for each in found)),
        "",
        "## How a verdict is made",
        "",
        f"Ours is a difference pair by pair (the same seed, the same turn), with Student's {CONFIDENCE:.0%} interval. "
        "Of a single training the pairs are crops or runs of k-means, and the interval says nothing of another one: "
        "that counts as one repeat. "
        "Of errors and times it is the difference of logarithms, printed as a ratio. The interval is wider than a "
        "bootstrap interval of so few pairs, which is hardly more than the smallest and the largest. Nothing is "
        "corrected for the number of comparisons on this page. In the plots the dashed line is the paper's figure.",
        "",
        f"This page is written by `{command}` from the files in `benchmarks/results`; a test rebuilds it and compares. "
        "No figure and no verdict of ours is written by hand.",
        "",
        "The rule for a condition is printed with each claim. " + TOGETHER,
        "",
        "Where the paper gives a figure, its size has a verdict of its own. " + SIZE,
        "",
    ]
    for number, (claim, finding) in enumerate(found, 1):
        lines += _section(number, claim, finding)
    return "\n".join(lines).rstrip("\n") + "\n"


PAPER = "https://openreview.net/forum?id=IBzmQVia88"
_SUMMARY = ("claim", "verdict", "ours", "would have been seen", "at the paper's size")


def _summary(claim: Claim, finding: Finding | None) -> list[str]:
    if finding is None:
        return [claim.title, _bold(Verdict.NOT_MEASURED), "-", "-", "-"]
    size = "-" if finding.size is None else _counted(finding.size, [row.size for row in finding.counted])
    effect = _counted(finding.effect, [row.effect for row in finding.counted])
    rows = finding.counted
    return [claim.title, effect, _ours(claim, rows), visible_of(claim, rows), size]


def _ours(claim: Claim, rows: Sequence[Row]) -> str:
    least, most = (of(rows, key=lambda row: row.gain.mean) for of in (min, max))
    intervals = f"{claim.unit.title}: {claim.unit.interval(least.gain)}"
    return intervals if len(rows) == 1 else f"{intervals} to {claim.unit.interval(most.gain)}, by condition"


def _counted(verdict: Verdict, of: Sequence[Verdict | None]) -> str:
    if len(of) == 1:
        return _bold(verdict)
    counts = Counter(each.value for each in of if each).most_common()
    if len(counts) == 1:
        return f"{_bold(verdict)} (all {len(of)} conditions)"
    return f"{_bold(verdict)} (of {len(of)} conditions: {', '.join(f'{count} {value}' for value, count in counts)})"


def _section(number: int, claim: Claim, finding: Finding | None) -> list[str]:
    lines = [f"## {number}. {claim.title}", "", f"The paper: {claim.paper}.", ""]
    if finding is None:
        return [*lines, f"{_bold(Verdict.NOT_MEASURED)}: there is no result. `{claim.missing}` makes one.", ""]
    sized = finding.size is not None
    head = ["condition", *finding.head, "verdict", *(["at the paper's size"] if sized else [])]
    rows = [
        [row.condition, *row.cells, row.effect.value, *([row.size.value] if row.size else [])] for row in finding.rows
    ]
    lines += [*markdown_table(head, rows), "", f"![{claim.title}]({plot_of(claim)})", ""]
    for note in finding.notes:
        lines += [note, ""]
    verdict = f"Verdict: {_bold(finding.effect)}" + (f"; at the paper's size: {_bold(finding.size)}" if sized else "")
    lines += [f"{verdict}. The rule, for a condition: {claim.rule}", "", f"Budget: {finding.budget}.", ""]
    lines += ['<details markdown="1"><summary>Files, machines, commands</summary>', ""]
    for source in finding.sources:
        lines += [f"`{source.file}`: seeds {source.seeds}. {source.machine}", "", f"Command: `{source.command}`", ""]
    return [*lines, "</details>", ""]


def plot_of(claim: Claim) -> str:
    """Path of a claim's plot, from the page."""
    return f"{PLOTS}/{claim.name}.svg"


def _bold(verdict: Verdict | None) -> str:
    return f"**{verdict.value}**" if verdict else "-"
