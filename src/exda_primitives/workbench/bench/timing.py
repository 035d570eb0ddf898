"""Times several steps in turns, and computes percentiles and ratios of the times."""

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
"""Turns that are done however long they take, so that percentiles mean something."""


def clock(device: torch.device) -> Clock:
    """Returns a function that measures the seconds of one call, from an idle device until the work is done.

    On CUDA it uses events, so that the time to launch kernels counts only if the device waits for it.
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
    return start.elapsed_time(end) / 1000  # milliseconds to seconds


def turns(
    steps: dict[Key, Step],
    clock: Clock,
    count: int,
    warm_up: int,
    limit: float,
    failed: Callable[[Key, Exception], None],
    fewest: int = FEWEST_TURNS,
) -> Iterator[dict[Key, float]]:
    """Times every step once per turn, so that a machine that slows down does so for all of them.

    Args:
        steps: the steps by key; one that raises is removed.
        clock: measures a call in seconds.
        count: number of turns that count.
        warm_up: turns before these, not yielded.
        limit: seconds after which no further turn starts, once there are ``fewest``.
        failed: called with key and exception when a step raises.
        fewest: turns that are done however long they take.

    Yields:
        The seconds of each step in one turn, by key.
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
    # Each step comes first equally often, as the first may find a colder cache or a cooler chip.
    start = turn % len(keys) if keys else 0
    return keys[start:] + keys[:start]


@dataclass(frozen=True)
class Percentiles:
    """The 20th, 50th and 80th percentile of times, in seconds."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Percentiles:
        """Computes them with linear interpolation between the two nearest times."""
        return cls(*(float(each) for each in np.percentile(seconds, (20, 50, 80))))


def ratio(seconds: Sequence[float], base: Sequence[float] | None) -> float | None:
    """Returns the median over turns of the ratio within a turn; None without a base.

    Examples:
        >>> ratio([2.0, 6.0, 5.0], [1.0, 2.0, 5.0])
        2.0
    """
    if base is None:
        return None
    return statistics.median(each / of for each, of in zip(seconds, base, strict=True))
