"""Times steps that take turns, and writes a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exda_primitives.workbench.bench.cases import CAPTURED, EAGER, ORIGINAL
from exda_primitives.workbench.bench.timing import Percentiles, clock, ratio, turns

from .stage import Run, described

_WARM_UP = 2

Key = tuple[str, str]
"""Variant and mode."""


def timed(
    run: Run, steps: Mapping[Key, Callable[[], object]], count: int, limit: float, where: Mapping[str, str]
) -> None:
    """Times all steps and writes a row for each, with its ratios to the original, eager and captured.

    Args:
        run: the stage's run.
        steps: the steps that take turns; one that raises is left out.
        count: number of turns.
        limit: seconds after which no further turn is begun, once there are enough.
        where: entries of the rows that say what was timed.
    """

    def failed(key: Key, error: Exception) -> None:
        run.rows.write("error", variant=key[0], mode=key[1], **where, **described(error))

    left = dict(steps)
    found = list(turns(left, clock(run.device.torch), count, _WARM_UP, limit, failed))
    seconds = {key: [turn[key] for turn in found] for key in left if found}
    for (variant, mode), times in seconds.items():
        percentiles = Percentiles.of(times)
        run.rows.write(
            "time",
            variant=variant,
            mode=mode,
            **where,
            p20_ms=1e3 * percentiles.p20,
            p50_ms=1e3 * percentiles.p50,
            p80_ms=1e3 * percentiles.p80,
            ratio_to_eager=ratio(times, seconds.get((ORIGINAL, EAGER))),
            ratio_to_captured=ratio(times, seconds.get((ORIGINAL, CAPTURED))),
            seconds=times,
        )
