"""Verdicts follow from the rules."""

from dataclasses import replace

import pytest
from benchmarks.claims.claim import Finding, Row
from benchmarks.claims.page import page
from benchmarks.claims.verdicts import best, cost, effect, only_before, size, together

from .made import DIGITS, INCONCLUSIVE, NOT_MEASURED, REFUTED, REPRODUCED, g


@pytest.mark.parametrize(
    ("over_host", "over_controls", "verdict"),
    [
        (g(1, 2), [g(0.5, 2)], REPRODUCED),
        (g(1, 2), [g(0.5, 2), g(0.1, 1)], REPRODUCED),
        (g(-2, -1), [g(-2, -1)], REFUTED),
        # A control that does better, and a control that does as well.
        (g(1, 2), [g(0.5, 2), g(-2, -1)], REFUTED),
        (g(1, 2), [g(-0.1, 0.1)], REFUTED),
        # The gain over the control or over the host is not certain, or there is no control.
        (g(1, 2), [g(-1, 1)], INCONCLUSIVE),
        (g(-1, 2), [g(0.5, 1)], INCONCLUSIVE),
        (g(0, 2), [g(0.5, 1)], INCONCLUSIVE),
        (g(-1, 2), [g(-2, -1)], INCONCLUSIVE),
        (g(1, 2), [], INCONCLUSIVE),
        # Worse than the host: refuted without a control, and by two repeats of one.
        (g(-2, -1), [], REFUTED),
        (g(-2, -1), [g(-2, -1, 2)], REFUTED),
        # Fewer than three repeats.
        (g(1, 2, 2), [g(0.5, 2)], INCONCLUSIVE),
        (g(-2, -1, 1), [g(-2, -1)], INCONCLUSIVE),
        (g(1, 2), [g(0.5, 2, 2)], INCONCLUSIVE),
    ],
)
def test_effect(over_host, over_controls, verdict):
    assert effect(over_host, {str(index): control for index, control in enumerate(over_controls)}) is verdict


@pytest.mark.parametrize(
    ("of_effect", "figure", "verdict"),
    [
        (REPRODUCED, 1.9, REPRODUCED),
        (REPRODUCED, 0.5, REPRODUCED),
        (REPRODUCED, 2.1, INCONCLUSIVE),
        (INCONCLUSIVE, 0.5, INCONCLUSIVE),
        (REFUTED, 0.5, REFUTED),
    ],
)
def test_size(of_effect, figure, verdict):
    assert size(of_effect, g(1, 2), figure) is verdict


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (g(1, 2), g(-0.1, 0.1), REPRODUCED),
        (g(1, 2), g(1, 2), REFUTED),
        (g(-1, 1), g(1, 2), REFUTED),
        # After the aggregation it is certainly better, but hardly.
        (g(1, 2), g(0.05, 0.1), REPRODUCED),
        (g(1, 2), g(-0.5, 0.5), INCONCLUSIVE),
        (g(-1, 1), g(-0.1, 0.1), INCONCLUSIVE),
        (g(1, 2), g(1, 2, 2), INCONCLUSIVE),
        (g(1, 2, 2), g(-0.1, 0.1), INCONCLUSIVE),
    ],
)
def test_only_before(before, after, verdict):
    assert only_before(before, {"widened": before}, after, {"widened": after}) is verdict


def test_only_before_needs_a_gain_over_the_control_as_well():
    none = g(-0.01, 0.01)
    assert only_before(g(1, 2), {"widened": g(1, 2)}, g(1, 2), {"widened": none}) is INCONCLUSIVE
    assert only_before(g(1, 2), {"widened": none}, none, {"widened": none}) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("over_others", "verdict"),
    [
        ([g(1, 2), g(0.1, 0.2)], REPRODUCED),
        ([g(1, 2), g(-0.2, -0.1)], REFUTED),
        ([g(1, 2), g(-0.2, 0.1)], INCONCLUSIVE),
        ([g(1, 2), g(-0.2, -0.1, 2)], INCONCLUSIVE),
        ([], INCONCLUSIVE),
    ],
)
def test_best(over_others, verdict):
    assert best({str(index): other for index, other in enumerate(over_others)}) is verdict


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        (g(0.01, 0.04), REPRODUCED),
        (g(-0.1, -0.05), REPRODUCED),
        (g(0.06, 0.1), REFUTED),
        (g(0.04, 0.06), INCONCLUSIVE),
        (g(0.06, 0.1, 2), INCONCLUSIVE),
    ],
)
def test_cost(more, verdict):
    assert cost(more) is verdict


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ([], NOT_MEASURED),
        ([REPRODUCED, REPRODUCED], REPRODUCED),
        ([REPRODUCED, INCONCLUSIVE], INCONCLUSIVE),
        ([REPRODUCED, INCONCLUSIVE, REFUTED], REFUTED),
    ],
)
def test_together(verdicts, verdict):
    assert together(verdicts) is verdict


def test_conditions_of_few_repeats_count_only_where_there_are_no_others():
    few, many = Row("a", (), g(1, 2, 1), INCONCLUSIVE, INCONCLUSIVE), Row("b", (), g(1, 2), REPRODUCED, REPRODUCED)
    both = Finding((), (few, many), "", ())
    assert (both.effect, both.size) == (REPRODUCED, REPRODUCED)
    alone = replace(both, rows=(few,))
    assert (alone.effect, alone.size) == (INCONCLUSIVE, INCONCLUSIVE)


@pytest.mark.parametrize(
    ("effects", "cell"),
    [
        ([REPRODUCED], "**reproduced**"),
        ([REPRODUCED] * 2, "**reproduced** (all 2 conditions)"),
        ([REFUTED, INCONCLUSIVE, REFUTED], "**refuted** (of 3 conditions: 2 refuted, 1 inconclusive)"),
    ],
)
def test_the_summary_counts_conditions(effects, cell):
    rows = tuple(Row("a", (), g(1, 2), each, None) for each in effects)
    text = page([(DIGITS, Finding((), rows, "a budget", ()))], "a command")
    row = next(line for line in text.splitlines() if line.startswith(f"| {DIGITS.title} |"))
    assert row.split(" | ")[1] == cell
