"""Turns errors into one plain line and an exit code, instead of a traceback."""

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
"""Added to a signal's number, this is the exit code that shells report for a process that the signal ended."""


class PlainErrorGroup(TyperGroup):
    """A command group that prints an error as one plain line, unless the program itself is at fault."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Prepares the standard streams, then runs the command."""
        _open_missing()
        for stream in (sys.stdout, sys.stderr):
            # File names may contain characters that the terminal's encoding lacks, or undecodable bytes.
            with suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        with errors_as_lines():
            return super().main(*args, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Expands ``~`` where a shell does not: in quotes, and in ``--out=~/results``."""
        return super().parse_args(ctx, [_at_home(each) for each in args])

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        # Caught here, before Typer turns an interruption into a silent exit code.
        with errors_as_lines():
            return super().invoke(ctx)


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Prints an error that leaves the block as one line and exits, with code 1, or 128 + the number of a signal.

    A ``StoppedError`` says itself what was done so far. Errors that point to a fault in the program keep their
    traceback.
    """
    from ..errors import ExDAError, StoppedError  # noqa: PLC0415

    try:
        yield
    except ExDAError as error:
        _exit(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exda_primitives":
            raise
        # Only where the library was installed without its dependencies.
        _exit(f"the Python module {error.name} is not installed, and this needs it")
    except BrokenPipeError:
        # The reader of the output has closed the pipe (``exda ... | head``); Typer handles this.
        raise
    except OSError as error:
        _exit(": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error))
    except KeyboardInterrupt as stop:
        stopped = stop if isinstance(stop, StoppedError) else StoppedError("interrupted", signal.SIGINT)
        _exit(str(stopped), INTERRUPTED + stopped.number, kind="")
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        _exit("not enough memory" + (f" ({first})" if (first := str(error).partition("\n")[0]) else ""))


@contextmanager
def stop_on_signal(summary: Callable[[], str]) -> Iterator[None]:
    """Ends the block with a ``StoppedError`` on Ctrl-C, SIGTERM or a closed terminal.

    Args:
        summary: returns what was done so far, for the error's message.
    """
    from ..errors import StoppedError  # noqa: PLC0415

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedError("interrupted", number)

    before = {number: signal.getsignal(number) for number in _signals()}
    try:
        # Shells start a script's background commands with SIGINT ignored. One that arrives all the same was sent to
        # this process on purpose, so it is handled, too.
        for number in before:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt as error:
        by = error.number if isinstance(error, StoppedError) else signal.SIGINT
        raise StoppedError(f"interrupted: {summary()}", by) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> Iterator[signal.Signals]:
    yield from (signal.SIGINT, signal.SIGTERM)
    # Windows has no SIGHUP; nohup sets it to be ignored, which has to stay so.
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        yield hang_up


def _exit(text: str, code: int = 1, kind: str = "error: ") -> NoReturn:
    lines = "\n".join(map(printable, f"{kind}{text}".split("\n")))
    # After SIGHUP, the terminal that stderr wrote to may be gone.
    with suppress(OSError):
        Console(stderr=True).print(lines, markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code) from None


def _lacks_memory(error: MemoryError | RuntimeError) -> bool:
    # On the CPU, PyTorch raises a plain RuntimeError when memory runs out.
    text = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def _open_missing() -> None:
    """Opens standard streams that were closed (``>&-``) on os.devnull.

    Otherwise the next file to be opened would get their number, and what is printed would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _at_home(argument: str) -> str:
    """Returns the argument, or the value in ``--option=value``, with a leading ``~`` expanded."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and value.startswith("~"):
        return option + equals + os.path.expanduser(value)
    return os.path.expanduser(argument) if argument.startswith("~") else argument
