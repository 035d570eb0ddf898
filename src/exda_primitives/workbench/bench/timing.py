"""Times of several steps that take turns, and what is made of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

Key = TypeVar("Key")
Step = TypeVar("Step", bound=Callable[[], object])
Clock = Callable[[Callable[[], object]], float]

FEWEST_TURNS = 5
"""What percentiles are taken of, however long the turns take."""


def clock(device: torch.device) -> Clock:
    """What measures one call, in seconds, from an idle device until its work is done.

    On CUDA by events, so that what starting kernels costs counts only where the device waits for it.
    """
    return _cuda_seconds if device.type == "cuda" else _seconds


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _cuda_seconds(step: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def turns(
    steps: dict[Key, Step],
    clock: Clock,
    count: int,
    warm_up: int,
    limit: float,
    failed: Callable[[Key, Exception], None],
    fewest: int = FEWEST_TURNS,
) -> Iterator[dict[Key, float]]:
    """Times every step once a turn, so that a machine that gets slower does so for all of them.

    Args:
        steps: what takes turns; one that raises is taken out.
        clock: measures a call in seconds.
        count: of turns.
        warm_up: turns before the first that counts.
        limit: seconds after which no further turn is begun, once there are ``fewest`` of them.
        failed: told of a step that raised.
        fewest: turns, however long they take.

    Yields:
        The seconds of a turn.
    """
    begun = 0.0
    for turn in range(-warm_up, count):
        if turn == 0:
            begun = time.perf_counter()
        if turn >= fewest and time.perf_counter() - begun > limit:
            return
        seconds = {}
        for key in _rotated(list(steps), turn):
            try:
                seconds[key] = clock(steps[key])
            except Exception as error:
                del steps[key]
                failed(key, error)
        if turn >= 0:
            yield seconds


def _rotated(keys: list[Key], turn: int) -> list[Key]:
    # Each comes first as often as the others: the first one meets a colder cache, or a cooler chip.
    start = turn % len(keys) if keys else 0
    return keys[start:] + keys[:start]


@dataclass(frozen=True)
class Percentiles:
    """Of times, in seconds."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Percentiles:
        """With linear interpolation between the two nearest times."""
        return cls(*(float(each) for each in np.percentile(seconds, (20, 50, 80))))


def ratio(seconds: Sequence[float], base: Sequence[float] | None) -> float | None:
    """Median over turns of the ratio within a turn; None without a base.

    Example:
        >>> ratio([2.0, 6.0, 5.0], [1.0, 2.0, 5.0])
        2.0
    """
    if base is None:
        return None
    return statistics.median(each / of for each, of in zip(seconds, base, strict=True))
