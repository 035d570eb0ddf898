"""What was gained, and the rules by which a verdict follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from exda_primitives.errors import ExDAError
from exda_primitives.workbench.shared.results import spread

LEAST = 3
"""Repeats that a verdict other than "inconclusive" needs."""
SHARE = 0.1
"""Of a gain: less than this is none."""
NEGLIGIBLE = 0.05
"""Of the original's time: less than this is negligible."""
CONFIDENCE = 0.95
POWER = 0.8
"""Of the smallest effect that repeats are said to see: how often they would."""


class Verdict(str, Enum):
    """What became of a claim; the values are what the page says."""

    REPRODUCED = "reproduced"
    INCONCLUSIVE = "inconclusive"
    REFUTED = "refuted"
    NOT_MEASURED = "not measured"


class Gain(NamedTuple):
    """A mean difference with its interval; where something is gained, positive in the direction that is claimed.

    Attributes:
        low: of the interval.
        mean: of all pairs.
        high: of the interval.
        repeats: how often the experiment was done anew (trained, timed); not how many images were measured.
    """

    low: float
    mean: float
    high: float
    repeats: int


def gain(differences: Sequence[float], repeats: int | None = None) -> Gain:
    """Mean of differences pair by pair, with Student's interval; without any spread to judge by, an endless one.

    Of three seeds a bootstrap interval is hardly more than the smallest and the largest difference; Student's is as
    wide as so few allow.

    Args:
        differences: of each pair.
        repeats: of the experiment; by default each pair is one.

    Raises:
        ExDAError: for no differences, or one that is not finite.
    """
    mean, deviation, n = spread(differences)
    half = math.inf
    if deviation is not None:
        half = critical(n) * deviation / math.sqrt(n)
    return Gain(mean - half, mean, mean + half, n if repeats is None else repeats)


def critical(n: int) -> float:
    """Mean of n pairs over its standard error from which on Student's interval does not reach 0."""
    return float(student.ppf((1 + CONFIDENCE) / 2, n - 1))


def visible(differences: Sequence[float]) -> float:
    """The smallest mean difference that as many pairs would separate from 0 with the probability ``POWER``.

    By the two-sided paired t test whose interval is ``gain``'s, if the differences scatter normally with the
    deviation that these have. Infinite for a single pair.

    Raises:
        ExDAError: for no differences, or one that is not finite.

    Example:
        >>> round(visible([0.1, -0.1, 0.2, 0.0, -0.2]), 2)  # a deviation of 0.158
        0.26
    """
    _, deviation, n = spread(differences)
    if deviation is None:
        return math.inf
    return deviation / math.sqrt(n) * shift(n)


def seen(of: Gain) -> float:
    """As ``visible``, of a gain whose pairs are its repeats; infinite below ``LEAST``, which decide nothing."""
    if of.repeats < LEAST:
        return math.inf
    return (of.high - of.mean) / critical(of.repeats) * shift(of.repeats)


def shift(n: int) -> float:
    """Mean of n pairs over its standard error at which their t test finds it with the probability ``POWER``."""
    least = critical(n)

    def excess(mean: float) -> float:
        # A mean above 0 that is found to be below 0 does not count.
        return float(nct.sf(least, n - 1, mean)) - POWER

    return float(brentq(excess, 0, 3 * least))


def pairs_for(effect: float, deviation: float) -> int:
    """How many pairs separate a mean difference from 0 with the probability ``POWER``.

    Args:
        effect: the mean difference, above 0.
        deviation: of the differences, standard.
    """
    n = 2
    while deviation / math.sqrt(n) * shift(n) > effect:
        n += 1
    return n


def log_ratios(larger: Sequence[float], smaller: Sequence[float]) -> list[float]:
    """Natural logarithms of ``larger / smaller``, pair by pair.

    Raises:
        ExDAError: for different numbers of values, or one that has no logarithm.
    """
    if len(larger) != len(smaller):
        raise ExDAError(f"ratios pair by pair need as many values of each, got {len(larger)} and {len(smaller)}")
    for value in (*larger, *smaller):
        if not (math.isfinite(value) and value > 0):
            raise ExDAError(f"{value} is no error or time: expected a positive, finite number")
    return [math.log(one / other) for one, other in zip(larger, smaller, strict=True)]


EFFECT = (
    "**reproduced**: the interval of the gain lies above 0, and so does that of the gain over each control of equal "
    "size. **refuted**: the interval lies below 0; or it lies above, but a control does equally well (the gain over it "
    f"has an interval that ends below {SHARE:.0%} of the gain). **inconclusive**: anything else, less than "
    f"{LEAST} repeats, and a gain without a control."
)


def effect(over_host: Gain, over_controls: Mapping[str, Gain]) -> Verdict:
    """By the rule ``EFFECT``."""
    if over_host.repeats < LEAST:
        return Verdict.INCONCLUSIVE
    if over_host.high < 0:
        return Verdict.REFUTED
    if over_host.low <= 0 or not over_controls or min(c.repeats for c in over_controls.values()) < LEAST:
        return Verdict.INCONCLUSIVE
    if any(control.high < SHARE * over_host.mean for control in over_controls.values()):
        return Verdict.REFUTED
    return Verdict.REPRODUCED if all(c.low > 0 for c in over_controls.values()) else Verdict.INCONCLUSIVE


SIZE = (
    "**reproduced**: the effect is, and its interval reaches the paper's figure or lies above it. **refuted**: the "
    "effect is. **inconclusive**: anything else, and so any interval that ends below the figure."
)


def size(of_effect: Verdict, over_host: Gain, figure: float) -> Verdict:
    """By the rule ``SIZE``."""
    if of_effect is Verdict.REPRODUCED and over_host.high < figure:
        return Verdict.INCONCLUSIVE
    return of_effect


ONLY_BEFORE = (
    "**refuted**: a non-linearity after the aggregation leaves it too, i.e. the intervals of its gains over linear V "
    f"and over the wider linear V lie above 0, and the gain is at least {SHARE:.0%} of that of the one before. "
    "**reproduced**: the one before is better than both, and the interval of the gain of the one after ends below "
    f"{SHARE:.0%} of it. **inconclusive**: anything else, and less than {LEAST} repeats."
)


def only_before(
    before: Gain, before_controls: Mapping[str, Gain], after: Gain, after_controls: Mapping[str, Gain]
) -> Verdict:
    """By the rule ``ONLY_BEFORE``."""
    escapes = effect(after, after_controls) is Verdict.REPRODUCED
    if escapes and after.mean >= SHARE * before.mean:
        return Verdict.REFUTED
    does = effect(before, before_controls) is Verdict.REPRODUCED
    if does and after.repeats >= LEAST and after.high < SHARE * before.mean:
        return Verdict.REPRODUCED
    return Verdict.INCONCLUSIVE


BEST = (
    "**reproduced**: the intervals of the gains over each other form lie above 0. **refuted**: one lies below 0. "
    f"**inconclusive**: anything else, and less than {LEAST} repeats."
)


def best(over_others: Mapping[str, Gain]) -> Verdict:
    """By the rule ``BEST``."""
    if not over_others or min(other.repeats for other in over_others.values()) < LEAST:
        return Verdict.INCONCLUSIVE
    if any(other.high < 0 for other in over_others.values()):
        return Verdict.REFUTED
    return Verdict.REPRODUCED if all(other.low > 0 for other in over_others.values()) else Verdict.INCONCLUSIVE


COST = (
    f"Negligible is, for us, less than {NEGLIGIBLE:.0%} more time. **reproduced**: the interval ends below that. "
    f"**refuted**: it begins above. **inconclusive**: anything else, and less than {LEAST} turns."
)


def cost(more: Gain) -> Verdict:
    """By the rule ``COST``; ``more`` is the logarithm of the ratio of times."""
    limit = math.log(1 + NEGLIGIBLE)
    if more.repeats < LEAST or more.low <= limit <= more.high:
        return Verdict.INCONCLUSIVE
    return Verdict.REPRODUCED if more.high < limit else Verdict.REFUTED


TOGETHER = (
    "The paper states its claims without conditions. So a claim is **reproduced** if it is under every condition that "
    "was tried, **refuted** if it is under at least one, **not measured** if there is none, and else "
    f"**inconclusive**. Conditions of less than {LEAST} repeats do not count where others have more."
)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim, from those under its conditions, by the rule ``TOGETHER``."""
    found = set(verdicts)
    if not found:
        return Verdict.NOT_MEASURED
    if Verdict.REFUTED in found:
        return Verdict.REFUTED
    return Verdict.REPRODUCED if found == {Verdict.REPRODUCED} else Verdict.INCONCLUSIVE
