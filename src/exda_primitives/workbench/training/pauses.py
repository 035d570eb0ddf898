"""Decides between two steps, alike in all processes, whether to save and whether to stop."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

from .signals import Asked

EVERY = 300.0
"""Seconds after which a run is saved, whatever ``save_every`` is."""
SHARE = 50
"""Least time between two saves as a multiple of the time that a save takes, so that saving costs at most 2 %."""


class Pause(NamedTuple):
    """What to do after a step.

    Attributes:
        signal: number of the signal that asked to stop; 0 for none.
        save: whether it is time to save.
    """

    signal: int
    save: bool


class Pauses:
    """Watches the clock and the signals of a run. The clock is monotonic, unaffected by changes of the system's time.

    Args:
        here: this process's Fabric.
        asked: holds the number of a signal that came.
    """

    def __init__(self, here: Any, asked: Asked) -> None:
        self._here, self._asked = here, asked
        self._next = time.monotonic() + EVERY

    def check(self) -> Pause:
        """Returns what to do; all processes must call it after the same step, and get the same answer."""
        # The clocks of the processes differ, so the first one decides. Signals may have come to some of them only; by
        # the maximum all stop, and with the same number.
        due = self._here.global_rank == 0 and time.monotonic() >= self._next
        told = torch.tensor([self._asked.value, int(due)], device=self._here.device)
        number, save = self._here.all_reduce(told, reduce_op="max").tolist()
        return Pause(number, bool(save))

    def saved(self, seconds: float) -> None:
        """Sets the time of the next save; to be called after each save with the seconds that it took."""
        self._next = time.monotonic() + max(EVERY, SHARE * seconds)
