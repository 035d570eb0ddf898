"""Whatever goes wrong as one plain line and an exit code, instead of a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from typer.core import TyperGroup

from .names import printable

INTERRUPTED = 128
"""What a shell adds to a signal's number for the exit code of a process that it ended."""


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Plain(TyperGroup):
    """Commands of which every error that is no fault of the program is one plain line."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Makes sure that there is something to print to, which takes any text."""
        _open_missing()
        for stream in (sys.stdout, sys.stderr):
            # Names of files need not be text in the encoding of the terminal, or in any.
            with suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        with plainly():
            return super().main(*args, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Expands ``~`` where a shell does not: in quotes, and in ``--out=~/results``."""
        return super().parse_args(ctx, [_at_home(each) for each in args])

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        # Here as well: Typer makes an exit code of an interruption, and nothing is said of it.
        with plainly():
            return super().invoke(ctx)


@contextmanager
def plainly() -> Iterator[None]:
    """Prints an error that leaves the block, and exits: with 1, or for a signal as shells count them.

    An error that only the program itself can be blamed for keeps its traceback.
    """
    from ..errors import ExDAError  # noqa: PLC0415

    try:
        yield
    except ExDAError as error:
        _exit(str(error))
    except BrokenPipeError:
        # Whoever read the output wanted no more of it.
        raise
    except OSError as error:
        _exit(": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error))
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        _exit(": ".join(["interrupted", *map(str, stop.args)]), INTERRUPTED + number, kind="")
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        _exit("not enough memory" + (f" ({first})" if (first := str(error).partition("\n")[0]) else ""))


@contextmanager
def stoppable(said: Callable[[], str]) -> Iterator[None]:
    """Lets a signal (Ctrl-C, SIGTERM, a closed terminal) end the block in good order, as an interruption by Ctrl-C.

    Args:
        said: what had been done by then, for the line that is printed at the end.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in _signals()}
    try:
        # A script's background commands are started with SIGINT ignored; if it is sent all the same, it is meant.
        for number in before:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt as stopped:
        stopped.args = (said(),)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> Iterator[signal.Signals]:
    yield from (signal.SIGINT, signal.SIGTERM)
    # Not on Windows; and under nohup it is to be ignored.
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        yield hang_up


def _exit(text: str, code: int = 1, kind: str = "error: ") -> NoReturn:
    lines = "\n".join(map(printable, f"{kind}{text}".split("\n")))
    Console(stderr=True).print(lines, markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code) from None


def _lacks_memory(error: MemoryError | RuntimeError) -> bool:
    # PyTorch's on the CPU is a plain RuntimeError.
    text = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def _open_missing() -> None:
    """Standard streams that were closed (``>&-``) lead nowhere: the next file to be opened would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _at_home(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if option.startswith("--") and value.startswith("~"):
        return option + equals + os.path.expanduser(value)
    return os.path.expanduser(argument) if argument.startswith("~") else argument
