"""Ctrl-C, SIGTERM and a closed terminal while a run trains: it ends after the step at hand, and all is saved."""

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
"""Those that ask a process to end. Windows has no SIGHUP."""

_SAID = "\n{}: stops after this step, when all is saved; once more stops at once.\n"


class Asked(Protocol):
    """What a signal asked for.

    Attributes:
        value: number of the first signal, 0 before it.
    """

    value: int


def asked() -> Asked:
    """Nothing yet; several processes may share it."""
    nothing: Asked = get_context("spawn").Value("i", 0, lock=False)
    return nothing


@contextmanager
def listening(to: Asked, *, alone: bool = True) -> Iterator[None]:
    """Notes the first signal of the block in ``to``, and says so; a second one raises ``KeyboardInterrupt``.

    A signal that was ignored before (as behind ``nohup``) still is, and outside the main thread, which alone hears
    them, nothing changes.

    Args:
        to: where it is noted.
        alone: False in a process that another has begun: that one says it, and ends them all on the second.
    """

    def hear(number: int, _: FrameType | None) -> None:
        if not alone:
            to.value = to.value or number
        elif to.value:
            raise KeyboardInterrupt
        else:
            to.value = number
            # Not by print, in the midst of which the signal may have come; and there may be no terminal any more.
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
    """Signals wait until the end of the block. Processes begun in it hear none until they ``wake``."""
    if not hasattr(signal, "pthread_sigmask"):
        # Windows, whose signals do not reach other processes.
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wake() -> None:
    """Hears the signals that came since this process was begun, and those to come."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
