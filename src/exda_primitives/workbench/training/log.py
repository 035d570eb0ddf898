"""What a run prints while it trains."""

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
"""Seconds between two lines: the wait doubles from line to line."""


class Log:
    """Lines, and on a terminal a bar below them.

    The first line comes after the first step; between those that the recipe asks for, others come ever more seldom, so
    that a file shows early on whether training goes well, and does not grow long.

    Args:
        quiet: in all processes but one.
        steps: length of the run.
    """

    def __init__(self, *, quiet: bool, steps: int) -> None:
        self.console = Console(quiet=quiet, file=cast(TextIO, _Lasting(sys.stdout)))
        self._steps = steps
        self._begin: tuple[int, float] | None = None
        self._last, self._wait = -LONGEST_WAIT, FIRST_WAIT / 2

    def say(self, line: str) -> None:
        """A line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, loss: float, psnr: float | None = None) -> None:
        """A line of the history, or one between."""
        shown = "" if psnr is None else f", PSNR {psnr:.2f} dB"
        self.say(f"step {step}: loss {loss:.5f}{shown}{self._pace(step)}")
        self._last, self._wait = time.monotonic(), min(2 * self._wait, LONGEST_WAIT)

    def is_due(self) -> bool:
        """Whether it is time for a line between those of the history."""
        return time.monotonic() - self._last >= self._wait

    @contextmanager
    def progress(self, step: int) -> Iterator[Callable[[int], None]]:
        """Gives a function to be told each step."""
        with progress_on(self.console, counted=True, shown=self.console.is_terminal) as progress:
            task = progress.add_task("training", total=self._steps, completed=step)
            yield lambda done: progress.update(task, completed=done)

    def _pace(self, step: int) -> str:
        """From the first line on, that of the steps since."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = step, now
        first, begin = self._begin
        if step <= first:
            return ""
        seconds = (now - begin) / (step - first)
        return f", {seconds:.3g} s a step, {duration(seconds * (self._steps - step))} left"


def duration(seconds: float) -> str:
    """Example: ``duration(3700)`` is ``"1 h 2 min"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


class _Lasting:
    """A stream to write to; when nobody reads it any more, or its disk is full, that does not end what is logged."""

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
            # What is written from now on, and what Python flushes at its end, leads nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
