"""What is decided between two steps, by all processes alike: to save, to stop."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

from .signals import Asked

EVERY = 300.0
"""Seconds after which a run is saved, whatever ``save_every`` says."""
SHARE = 50
"""Where saving itself takes long, this many times as long is trained before it is done again."""


class Pause(NamedTuple):
    """After a step.

    Attributes:
        signal: number of the one that asked to stop, 0 for none.
        save: whether it is time to.
    """

    signal: int
    save: bool


class Pauses:
    """The clock and the signals of a run. The clock is one that nobody sets.

    Args:
        here: Lightning's Fabric, of this process.
        asked: what a signal asked for.
    """

    def __init__(self, here: Any, asked: Asked) -> None:
        self._here, self._asked = here, asked
        self._next = time.monotonic() + EVERY

    def look(self) -> Pause:
        """To be called by all processes after the same step; they are told the same."""
        due = self._here.global_rank == 0 and time.monotonic() >= self._next
        told = torch.tensor([self._asked.value, int(due)], device=self._here.device)
        number, save = self._here.all_reduce(told, reduce_op="max").tolist()
        return Pause(number, bool(save))

    def saved(self, seconds: float) -> None:
        """To be called when it was done, and how long it took."""
        self._next = time.monotonic() + max(EVERY, SHARE * seconds)
