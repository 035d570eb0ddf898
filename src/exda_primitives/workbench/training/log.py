"""Prints the progress of a run."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console

from ..shared.progress import progress_on

FIRST_WAIT, LONGEST_WAIT = 10.0, 300.0
"""First and longest time between two lines, in seconds; the time doubles from line to line."""


class Log:
    """Prints lines, and on a terminal a progress bar below them.

    The first line comes after the first step. Between the lines of the recipe's ``log_every``, others come at growing
    intervals, so that a log file shows early whether training goes well, and does not grow long.

    Args:
        quiet: print nothing; True in all processes but one.
        steps: length of the run.
    """

    def __init__(self, *, quiet: bool, steps: int) -> None:
        self.console = Console(quiet=quiet, file=cast(TextIO, _Lasting(sys.stdout)))
        self._steps = steps
        self._begin: tuple[int, float] | None = None
        # The first line is due at once; after it the wait is FIRST_WAIT, as each line doubles it.
        self._last, self._wait = -LONGEST_WAIT, FIRST_WAIT / 2

    def say(self, line: str) -> None:
        """Prints a line without interpreting markup."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, loss: float, psnr: float | None = None) -> None:
        """Prints loss, PSNR in dB if given, and pace after a step."""
        shown = "" if psnr is None else f", PSNR {psnr:.2f} dB"
        self.say(f"step {step}: loss {loss:.5f}{shown}{self._pace(step)}")
        self._last, self._wait = time.monotonic(), min(2 * self._wait, LONGEST_WAIT)

    def is_due(self) -> bool:
        """Returns whether it is time for a line between those of the history."""
        return time.monotonic() - self._last >= self._wait

    @contextmanager
    def progress(self, step: int) -> Iterator[Callable[[int], None]]:
        """Shows the bar during the block; yields a function to call with the number of steps done."""
        with progress_on(self.console, counted=True, shown=self.console.is_terminal) as progress:
            task = progress.add_task("training", total=self._steps, completed=step)
            yield lambda done: progress.update(task, completed=done)

    def _pace(self, step: int) -> str:
        """Returns time per step and time left, averaged since the first line; empty for that one."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = step, now
        first, begin = self._begin
        if step <= first:
            return ""
        seconds = (now - begin) / (step - first)
        return f", {seconds:.3g} s per step, {duration(seconds * (self._steps - step))} left"


def duration(seconds: float) -> str:
    """Returns a time as text in its two largest units: ``duration(3700)`` is ``"1 h 1 min"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


class _Lasting:
    """A stream whose failures do not end the run: its reader may be gone, or its disk full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            return self._lost(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> int:
        if error.errno in (errno.EPIPE, errno.EIO):
            # The reader is gone for good: all later output, also Python's last flush, goes to the null device.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
