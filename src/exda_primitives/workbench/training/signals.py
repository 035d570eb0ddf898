"""Handles Ctrl-C, SIGTERM and a closed terminal: the run ends after the current step, and is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from types import FrameType
from typing import Protocol

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a process to end. Windows has no SIGHUP."""

_SAID = "\n{}: stops after this step, when all is saved; once more stops at once.\n"


class Asked(Protocol):
    """The signal that asked to stop.

    Attributes:
        value: number of the first signal; 0 if none came.
    """

    value: int


def asked() -> Asked:
    """Returns a value 0, for no signal, in memory that several processes can share."""
    nothing: Asked = get_context("spawn").Value("i", 0, lock=False)
    return nothing


@contextmanager
def listening(to: Asked, *, alone: bool = True) -> Iterator[None]:
    """Records the first signal during the block in ``to``, and prints a line; a second one raises KeyboardInterrupt.

    A signal that was ignored before (as with ``nohup``) is still ignored. Outside of the main thread, the only one that
    can handle signals, nothing changes.

    Args:
        to: where the signal is recorded.
        alone: False in a process started by another, which prints the line, and ends all processes on the second
            signal.
    """

    def hear(number: int, _: FrameType | None) -> None:
        if not alone:
            to.value = to.value or number
        elif to.value:
            raise KeyboardInterrupt
        else:
            to.value = number
            # Not by print, which the signal may have interrupted. OSError: the terminal may be closed.
            with suppress(OSError):
                os.write(2, _SAID.format(signal.Signals(number).name).encode())

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if here}
    heard = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


@contextmanager
def deaf() -> Iterator[None]:
    """Blocks signals until the end of the block; processes started in it keep them blocked until they ``wake``."""
    if not hasattr(signal, "pthread_sigmask"):
        # Windows, where signals do not reach other processes.
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wake() -> None:
    """Unblocks signals: those that came since this process was started are delivered now, later ones as they come."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
