"""Groups of related claims: each group gets one generated sentence and one panel of the overview plot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .claim import Claim, Finding, Row
from .plot import COLOURS, LINE, SCALE, drawing, ends_of, line, placed, text
from .verdicts import Verdict, seen

Found = tuple[Claim, "Finding | None"]

GROUPS = {
    "Toy networks that approximate functions": {
        "function": "linear values are worse",
        "position": "only a non-linearity before the aggregation helps",
        "form-errors": "V + g(V) is the best form",
    },
    "Toy networks that restore digits": {
        "digits": "non-linear values are better",
        "windows": "non-linear values are better within windows",
        "position-digits": "only a non-linearity before the aggregation helps",
        "form-digits": "V + g(V) is the best form",
    },
    "Telling degradations apart by features": {"nmi": "tokens help (NMI)", "ari": "tokens help (ARI)"},
    "Restoring photographs, trained from scratch": {
        "quality-both": "both primitives are better (identity init)",
        "quality-paper": "both are better (the paper's init)",
        "quality-value": "the value alone is better",
        "quality-tokens": "tokens alone are better",
        "quality-time": "better in equal training time, too",
        "demo": "the demo's network is better",
    },
    "Trained hosts": {
        "continued": "primitives help further training",
        "adapt-all": "they help to learn a new degradation",
        "adapt-frozen": "with the host frozen, better than LoRA",
    },
    "Cost": {
        "cost-cpu-printed": "negligible on a CPU, as printed",
        "cost-cpu": "negligible on a CPU, concat-free",
        "cost-gpu-printed": "negligible on a GPU, as printed",
        "cost-gpu": "negligible on a GPU, concat-free",
    },
}
"""Group title -> claim name -> its wording in the summary. The claims of a group share one axis in the overview."""

_GAP, _LABELS, _NUMBERS = 44, 330, 190


def grouped(found: Sequence[Found]) -> list[tuple[str, list[Found]]]:
    """Returns the groups that have claims, in the order of ``GROUPS``.

    Raises:
        KeyError: for a claim without a group.
    """
    group_of = {name: title for title, names in GROUPS.items() for name in names}
    groups: dict[str, list[Found]] = {title: [] for title in GROUPS}
    for claim, finding in found:
        groups[group_of[claim.name]].append((claim, finding))
    return [(title, claims) for title, claims in groups.items() if claims]


def sentence(title: str, claims: Sequence[Found]) -> str:
    """Returns a sentence with the group's claims by verdict, each with the range of its measured gains."""
    by_verdict: dict[Verdict, list[str]] = {}
    for claim, finding in claims:
        verdict = Verdict.NOT_MEASURED if finding is None else finding.effect
        name = GROUPS[title][claim.name]
        by_verdict.setdefault(verdict, []).append(_said(name, claim, finding))
    parts = [f"**{verdict.value}**: {', '.join(by_verdict[verdict])}" for verdict in Verdict if verdict in by_verdict]
    return f"{title}: {'; '.join(parts)}."


def spread_of(claim: Claim, rows: Sequence[Row]) -> str:
    """Formats the smallest and the largest mean gain, without intervals."""
    means = sorted(row.gain.mean for row in rows)
    ends = dict.fromkeys(claim.unit.number(mean) for mean in (means[0], means[-1]))
    return " to ".join(ends)


def visible_of(claim: Claim, rows: Sequence[Row]) -> str:
    """Formats the range over conditions of the smallest detectable effect; a dash where repeats are too few."""
    smallest = sorted(effect for row in rows if math.isfinite(effect := seen(row.gain)))
    if not smallest:
        return "-"
    return " to ".join(dict.fromkeys(claim.unit.number(effect) for effect in (smallest[0], smallest[-1])))


def overview(found: Sequence[Found]) -> str:
    """Draws the overview SVG: one panel per group, with one line per claim and one dot per condition.

    A line spans all of a claim's intervals; a dot's colour is the condition's verdict. Each panel has its own scale.
    """
    marks, top = list[str](), 0
    for title, claims in grouped(found):
        measured = [(claim, finding) for claim, finding in claims if finding is not None]
        if not measured:
            continue
        marks += _panel(title, measured, top)
        top += _GAP + LINE * len(measured) + 14
    return drawing(_LABELS + SCALE + _NUMBERS, top, marks)


def _panel(title: str, claims: Sequence[tuple[Claim, Finding]], top: int) -> list[str]:
    rows = [row for _, finding in claims for row in finding.counted]
    x = placed(ends_of(rows), _LABELS)
    first, last = top + _GAP, top + _GAP + LINE * len(claims)
    marks = [f'<g font-weight="bold">{text("10", top + 24, title)}</g>']
    marks += [line(x(0), first - 6, x(0), last, "#000000"), text(x(0), first - 12, "no difference", "middle")]
    for index, (claim, finding) in enumerate(claims):
        y = first + LINE * index + LINE // 2
        own = ends_of(finding.counted)
        marks += [
            text("10", y + 4, GROUPS[title][claim.name]),
            line(x(min(own)), y, x(max(own)), y, COLOURS[finding.effect]),
        ]
        marks += [
            f'<circle cx="{x(row.gain.mean)}" cy="{y}" r="4" fill="{COLOURS[row.effect]}"/>' for row in finding.counted
        ]
        marks.append(text(str(_LABELS + SCALE + 10), y + 4, spread_of(claim, finding.counted) + claim.unit.suffix))
    return marks


def _said(name: str, claim: Claim, finding: Finding | None) -> str:
    if finding is None:
        return f"\u201c{name}\u201d"
    rows, suffix = finding.counted, claim.unit.suffix
    told = [spread_of(claim, rows) + suffix]
    decided = Counter(row.effect for row in rows if row.effect is not Verdict.INCONCLUSIVE)
    if decided and len(rows) > decided[finding.effect]:
        told += [f"{verdict.value} in {count} of {len(rows)} conditions" for verdict, count in decided.items()]
    visible = visible_of(claim, rows)
    if visible != "-" and all(row.gain.low <= 0 <= row.gain.high for row in rows):
        told.append(f"an effect of {visible}{suffix} would have been seen")
    return f"\u201c{name}\u201d ({'; '.join(told)})"
