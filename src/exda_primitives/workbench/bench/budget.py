"""A command's time limit, and estimates of what will not fit into it."""

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
"""Seconds. A pass that takes longer than this predicts a larger one well enough."""

_PARTS = (8, 4, 2, 1)
"""Divisors of both sides of the image, smallest image first: 1/64, 1/16, 1/4 and all of its pixels."""

_TRIES = 3
"""Timings of each size. The shortest counts: other processes may slow the others down."""


class Budget:
    """A time limit that starts now, with estimates of how long further work takes.

    Args:
        seconds: the limit; unlimited by default.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._spent: dict[float, float] = {}

    def left(self) -> float:
        """Returns the seconds that are left, negative once the limit has passed."""
        return self._end - time.monotonic()

    def spent(self, work: float, seconds: float) -> None:
        """Records how many seconds an amount of work took; the unit of ``work`` is the caller's choice."""
        self._spent[work] = seconds

    def estimate(self, work: float) -> float | None:
        """Returns the seconds that ``work`` will probably take, from the recorded work nearest in size.

        The estimate grows in proportion to the work but never shrinks, since smaller work has the same fixed costs.
        None before anything was recorded.
        """
        if not self._spent:
            return None
        nearest = min(self._spent, key=lambda done: abs(math.log(work / done)))
        return self._spent[nearest] * max(1.0, work / nearest)


def seconds_of_a_pass(networks: Networks, comparison: Comparison, device: torch.device, multiple: int) -> float:
    """Estimates the seconds of an eager forward pass of the original, from passes on smaller images.

    Args:
        networks: the networks to compare.
        comparison: sets size, batch and number format.
        device: where the passes run.
        multiple: number that the sides of an image have to be divisible by.
    """
    precision = PRECISIONS[comparison.precision]
    seconds, pixels = 0.0, 1
    for parts in _PARTS:
        height, width = (padded_side(side // parts, multiple) for side in (comparison.height, comparison.width))
        bench = Bench.of(device, FORWARD, comparison.batch, height, width, networks.channels)
        step = bench.step(bench.place(networks.original, ORIGINAL, precision), ORIGINAL, precision)
        # Not timed: on the first call with a shape, PyTorch chooses how to compute it.
        step()
        seconds, pixels = min(clock(device)(step) for _ in range(_TRIES)), comparison.batch * height * width
        if seconds > _ENOUGH:
            break
    # Scaled by the number of pixels, in which convolutions and channel attention are linear.
    return seconds * comparison.pixels / pixels
