"""Gains, their confidence intervals, and the smallest effect that a number of pairs detects."""

import math

import numpy as np
import pytest
from benchmarks.claims.claim import DECIBEL, MORE, times
from benchmarks.claims.verdicts import effect, gain, log_ratios, pairs_for, seen, visible
from hypothesis import given
from hypothesis import strategies as st

from exda_primitives.errors import ExDAError

from .made import INCONCLUSIVE, g


def test_the_interval_of_a_gain_is_students():
    found = gain([1.0, 2.0, 3.0])
    # Student's t for 95 % with 2 degrees of freedom is 4.303; the standard deviation is 1.
    half = 4.303 / math.sqrt(3)
    assert found == pytest.approx((2 - half, 2, 2 + half, 3), abs=1e-3)
    assert gain([1.0, 2.0, 3.0], repeats=1).repeats == 1


def test_a_single_pair_is_inconclusive():
    found = gain([5.0])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert DECIBEL.interval(found) == "+5.00 (no interval)"
    assert effect(found, {"widened": found}) is INCONCLUSIVE


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_visible_effect_is_detected_with_a_power_of_80_percent(n):
    generator = np.random.default_rng(n)
    effect = visible(np.linspace(-1, 1, n).tolist())
    deviation = np.linspace(-1, 1, n).std(ddof=1)
    drawn = generator.normal(effect, deviation, (4000, n))
    seen = np.mean([gain(each).low > 0 for each in drawn.tolist()])
    assert seen == pytest.approx(0.8, abs=0.02)
    # The inverse: an effect just above it needs n pairs.
    assert pairs_for(effect * 1.0001, deviation) == n


def test_a_single_pair_detects_no_effect():
    assert visible([0.5]) == math.inf


def test_the_effect_visible_to_a_gain_is_that_of_its_differences():
    differences = [0.1, -0.1, 0.2, 0.0, -0.2]
    assert seen(gain(differences)) == pytest.approx(visible(differences))
    assert seen(gain(differences, repeats=1)) == math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_negated_differences_negate_the_gain(differences):
    found, other = gain(differences), gain([-each for each in differences])
    assert found.low <= found.mean <= found.high
    assert (-other.high, -other.mean, -other.low) == pytest.approx(found[:3], abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gain_that_is_not_finite_is_refused(value):
    with pytest.raises(ExDAError, match="not finite"):
        gain([1.0, value])


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_errors_that_have_no_ratio_are_refused(value):
    for pair in (([value], [1.0]), ([1.0], [value])):
        with pytest.raises(ExDAError, match="positive, finite"):
            log_ratios(*pair)


def test_ratios_need_pairs():
    with pytest.raises(ExDAError, match="got 2 and 1"):
        log_ratios([1.0, 2.0], [1.0])


def test_ratios_and_percentages_as_text():
    ratio = times("ratio")
    assert [ratio.number(math.log(value)) for value in (0.00123, 1.504, 1234)] == ["0.00123x", "1.5x", "1,234x"]
    assert MORE.interval(g(math.log(1.05), math.log(1.05))) == "+5.0 % (+5.0 % to +5.0 %)"
