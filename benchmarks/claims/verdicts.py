"""Gains with their intervals, and the rules that turn them into verdicts."""

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
"""Number of repeats below which a verdict is always "inconclusive"."""
SHARE = 0.1
"""Fraction of a gain below which another gain is negligible in comparison."""
NEGLIGIBLE = 0.05
"""Fraction of the original's time below which more time counts as negligible."""
CONFIDENCE = 0.95
POWER = 0.8
"""Probability with which the repeats detect the smallest detectable effect."""


class Verdict(str, Enum):
    """The verdict on a claim; the values are the words on the page."""

    REPRODUCED = "reproduced"
    INCONCLUSIVE = "inconclusive"
    REFUTED = "refuted"
    NOT_MEASURED = "not measured"


class Gain(NamedTuple):
    """A mean of paired differences with its interval; a gain in quality is positive in the claimed direction.

    Attributes:
        low: lower end of the interval.
        mean: mean over all pairs.
        high: upper end of the interval.
        repeats: how often the whole experiment was repeated (trained, timed); not how many images were measured.
    """

    low: float
    mean: float
    high: float
    repeats: int


def gain(differences: Sequence[float], repeats: int | None = None) -> Gain:
    """Returns the mean of paired differences with Student's interval, which is infinite for a single pair.

    With three seeds, a bootstrap interval would hardly reach beyond the smallest and the largest difference;
    Student's is as wide as so few pairs require.

    Args:
        differences: one per pair.
        repeats: how often the experiment was repeated; by default, each pair is one repeat.

    Raises:
        ExDAError: for no differences, or one that is not finite.
    """
    mean, deviation, n = spread(differences)
    half = math.inf
    if deviation is not None:
        half = critical(n) * deviation / math.sqrt(n)
    return Gain(mean - half, mean, mean + half, n if repeats is None else repeats)


def critical(n: int) -> float:
    """Returns how many standard errors the mean of n pairs must be from 0 for its interval to exclude 0."""
    return float(student.ppf((1 + CONFIDENCE) / 2, n - 1))


def visible(differences: Sequence[float]) -> float:
    """Returns the smallest mean difference that this many pairs separate from 0 with probability ``POWER``.

    It assumes the two-sided paired t test that belongs to the interval of ``gain``, and normal differences with the
    standard deviation of the given ones. Infinite for a single pair.

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
    """Returns what ``visible`` does, from a gain whose pairs are its repeats; infinite below ``LEAST`` repeats."""
    if of.repeats < LEAST:
        return math.inf
    # Half the interval's width is critical(n) standard errors.
    return (of.high - of.mean) / critical(of.repeats) * shift(of.repeats)


def shift(n: int) -> float:
    """Returns how many standard errors a true mean must be from 0 for n pairs to detect it with ``POWER``."""
    least = critical(n)

    def excess(mean: float) -> float:
        # Power of the upper tail alone: a positive effect that is found to be negative does not count as detected.
        return float(nct.sf(least, n - 1, mean)) - POWER

    return float(brentq(excess, 0, 3 * least))


def pairs_for(effect: float, deviation: float) -> int:
    """Returns how many pairs separate a mean difference from 0 with probability ``POWER``.

    Args:
        effect: the true mean difference, above 0.
        deviation: standard deviation of the differences.
    """
    n = 2
    while deviation / math.sqrt(n) * shift(n) > effect:
        n += 1
    return n


def log_ratios(larger: Sequence[float], smaller: Sequence[float]) -> list[float]:
    """Returns the natural logarithm of ``larger / smaller`` for each pair.

    Raises:
        ExDAError: for different numbers of values, or one that has no logarithm.
    """
    if len(larger) != len(smaller):
        raise ExDAError(f"paired ratios need equally many values of each, got {len(larger)} and {len(smaller)}")
    for value in (*larger, *smaller):
        if not (math.isfinite(value) and value > 0):
            raise ExDAError(f"{value} is not an error or a time: expected a positive, finite number")
    return [math.log(one / other) for one, other in zip(larger, smaller, strict=True)]


EFFECT = (
    "**reproduced**: the interval of the gain is above 0, and so is the interval of the gain over each control of "
    "equal size. **refuted**: the interval is below 0; or it is above 0, but a control does equally well (the interval "
    f"of the gain over it ends below {SHARE:.0%} of the gain). **inconclusive**: anything else, including fewer than "
    f"{LEAST} repeats or no control."
)


def effect(over_host: Gain, over_controls: Mapping[str, Gain]) -> Verdict:
    """Returns the verdict on an effect by the rule ``EFFECT``."""
    if over_host.repeats < LEAST:
        return Verdict.INCONCLUSIVE
    if over_host.high < 0:
        return Verdict.REFUTED
    # Not above 0; or above 0, but without enough repeats of a control that would show whether size alone explains it.
    if over_host.low <= 0 or not over_controls or min(c.repeats for c in over_controls.values()) < LEAST:
        return Verdict.INCONCLUSIVE
    if any(control.high < SHARE * over_host.mean for control in over_controls.values()):
        return Verdict.REFUTED
    return Verdict.REPRODUCED if all(c.low > 0 for c in over_controls.values()) else Verdict.INCONCLUSIVE


SIZE = (
    "**reproduced**: the effect is reproduced, and its interval reaches the paper's figure or is above it. "
    "**refuted**: the effect is refuted. **inconclusive**: anything else, including any interval that ends below the "
    "paper's figure."
)


def size(of_effect: Verdict, over_host: Gain, figure: float) -> Verdict:
    """Returns the verdict on whether an effect is as large as the paper's, by the rule ``SIZE``."""
    if of_effect is Verdict.REPRODUCED and over_host.high < figure:
        return Verdict.INCONCLUSIVE
    return of_effect


ONLY_BEFORE = (
    "**refuted**: a non-linearity after the aggregation leaves the span too: the intervals of its gains over linear V "
    f"and over the wider linear V are above 0, and its gain over linear V is at least {SHARE:.0%} of the gain of the "
    "non-linearity before the aggregation. **reproduced**: the non-linearity before the aggregation is better than "
    "linear V and the wider linear V, and the interval of the gain of the one after ends below "
    f"{SHARE:.0%} of its gain. **inconclusive**: anything else, including fewer than {LEAST} repeats."
)


def only_before(
    before: Gain, before_controls: Mapping[str, Gain], after: Gain, after_controls: Mapping[str, Gain]
) -> Verdict:
    """Returns the verdict on "only a non-linearity before the aggregation helps" by the rule ``ONLY_BEFORE``.

    Args:
        before: gain of V + g(V) over linear V.
        before_controls: gains of V + g(V) over the controls.
        after: gain of O + g(O) over linear V.
        after_controls: gains of O + g(O) over the controls.
    """
    escapes = effect(after, after_controls) is Verdict.REPRODUCED
    if escapes and after.mean >= SHARE * before.mean:
        return Verdict.REFUTED
    does = effect(before, before_controls) is Verdict.REPRODUCED
    if does and after.repeats >= LEAST and after.high < SHARE * before.mean:
        return Verdict.REPRODUCED
    return Verdict.INCONCLUSIVE


BEST = (
    "**reproduced**: the intervals of the gains over all other forms are above 0. **refuted**: at least one of these "
    f"intervals is below 0. **inconclusive**: anything else, including fewer than {LEAST} repeats."
)


def best(over_others: Mapping[str, Gain]) -> Verdict:
    """Returns the verdict on "V + g(V) is the best form" by the rule ``BEST``."""
    if not over_others or min(other.repeats for other in over_others.values()) < LEAST:
        return Verdict.INCONCLUSIVE
    if any(other.high < 0 for other in over_others.values()):
        return Verdict.REFUTED
    return Verdict.REPRODUCED if all(other.low > 0 for other in over_others.values()) else Verdict.INCONCLUSIVE


COST = (
    f"we call less than {NEGLIGIBLE:.0%} more time negligible. **reproduced**: the interval ends below that limit. "
    f"**refuted**: it begins above. **inconclusive**: anything else, including fewer than {LEAST} turns."
)


def cost(more: Gain) -> Verdict:
    """Returns the verdict on a cost by the rule ``COST``; ``more`` is the logarithm of the ratio of times."""
    limit = math.log(1 + NEGLIGIBLE)
    if more.repeats < LEAST or more.low <= limit <= more.high:
        return Verdict.INCONCLUSIVE
    return Verdict.REPRODUCED if more.high < limit else Verdict.REFUTED


TOGETHER = (
    "The paper states its claims without conditions. So a claim is **reproduced** if it is reproduced under every "
    "condition that was tried, **refuted** if it is refuted under at least one, **not measured** if no condition was "
    f"tried, and **inconclusive** otherwise. Conditions with fewer than {LEAST} repeats count only if no condition has "
    "that many."
)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns the verdict on a claim from the verdicts under its conditions, by the rule ``TOGETHER``."""
    found = set(verdicts)
    if not found:
        return Verdict.NOT_MEASURED
    if Verdict.REFUTED in found:
        return Verdict.REFUTED
    return Verdict.REPRODUCED if found == {Verdict.REPRODUCED} else Verdict.INCONCLUSIVE
