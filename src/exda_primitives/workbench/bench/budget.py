"""How long a command may take, what is left of it, and what is going to be too long."""

from __future__ import annotations

import math
import time

import torch

from ..shared.padding import padded_side
from .cases import FORWARD, ORIGINAL, Comparison
from .networks import Networks
from .precision import PRECISIONS
from .steps import Bench
from .timing import clock

_ENOUGH = 0.2
"""Seconds of a pass that is long enough to tell from it how long a larger one takes."""

_PARTS = (8, 4, 2, 1)
_TRIES = 3
"""Of which the shortest counts: others may want the machine."""


class Budget:
    """Seconds from now on.

    Args:
        seconds: by default without end.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._spent: dict[float, float] = {}

    def left(self) -> float:
        """Seconds, below 0 when there are none."""
        return self._end - time.monotonic()

    def spent(self, work: float, seconds: float) -> None:
        """Keeps what some work took, in whatever unit it grows by."""
        self._spent[work] = seconds

    def estimate(self, work: float) -> float | None:
        """Seconds that some work is going to take, by the nearest that was done; None before there is any.

        As long as that, or longer by as much as it is larger: a smaller one begins with the same.
        """
        if not self._spent:
            return None
        nearest = min(self._spent, key=lambda done: abs(math.log(work / done)))
        return self._spent[nearest] * max(1.0, work / nearest)


def seconds_of_a_pass(networks: Networks, comparison: Comparison, device: torch.device, multiple: int) -> float:
    """About how long a forward pass of the original takes as it is, found by small ones.

    Args:
        networks: of the comparison.
        comparison: with the size.
        device: where.
        multiple: what the sides have to be divisible by.
    """
    precision = PRECISIONS[comparison.precision]
    seconds, pixels = 0.0, 1
    for parts in _PARTS:
        height, width = (padded_side(side // parts, multiple) for side in (comparison.height, comparison.width))
        bench = Bench.of(device, FORWARD, comparison.batch, height, width, networks.channels)
        step = bench.step(bench.place(networks.original, ORIGINAL, precision), ORIGINAL, precision)
        # The first call of a shape chooses how to compute it.
        step()
        seconds, pixels = min(clock(device)(step) for _ in range(_TRIES)), comparison.batch * height * width
        if seconds > _ENOUGH:
            break
    return seconds * comparison.pixels / pixels
