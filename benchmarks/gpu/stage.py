"""Runs one stage in this process and turns its errors into rows."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from exda_primitives.workbench.bench.memory import free_memory

from .device import Device, find
from .launches import Recording
from .rows import Rows

STAGES = ("about", "compile", "correct", "gradients", "harness", "host", "networks", "ratio", "training")

_LENGTH = 400
_TRACE = 1200
"""Largest number of characters of an error's text (``_LENGTH``) and trace (``_TRACE``) in a row."""
_SHARE = 0.85
"""Fraction of a stage's time after which it begins nothing new."""
_STDERR = 2
"""File descriptor of the log; ``sys.stderr`` may have been replaced."""
_SECONDS = 600.0
"""Time limit of a stage that is run by hand."""


@dataclass
class Run:
    """What a stage works with.

    Attributes:
        rows: where its results go.
        folder: folder for other files.
        end: time on the monotonic clock after which nothing new is begun.
    """

    rows: Rows
    folder: Path
    end: float

    @cached_property
    def device(self) -> Device:
        """The GPU, found on first use: not every stage needs one."""
        return find()

    def left(self) -> float:
        """Returns the seconds in which something new may still be begun; negative when it is too late."""
        return self.end - time.monotonic()

    @contextmanager
    def surviving(self, **where: Any) -> Iterator[None]:
        """A region whose errors become rows, so that the stage goes on.

        Args:
            where: entries of the row that say what was tried.

        Raises:
            RuntimeError: PyTorch's own, if no kernel can run in this process any more.
        """
        # Outside of the region: without a GPU, the stage as a whole fails.
        device = self.device
        try:
            yield
        except Exception as error:
            self.rows.write("error", **where, **described(error))
        else:
            return
        # Outside of the except clause: the error's traceback would keep tensors alive, and no memory would be freed.
        device.wait()
        free_memory(device.torch)


class Stage(Protocol):
    """The interface of a module in ``stages``."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Adds the stage's options to a parser."""

    def run(self, run: Run, options: argparse.Namespace) -> None:
        """Runs the stage's measurements."""

    def recordings(self, options: argparse.Namespace) -> Iterable[Recording]:
        """Returns the blocks that the stage will run, so that their kernels can be compiled ahead."""


def module(name: str) -> Stage:
    """Returns the stage of a name in ``STAGES``."""
    return cast(Stage, importlib.import_module(f".stages.{name}", __package__))


def parsed(arguments: Sequence[str]) -> tuple[Stage, argparse.Namespace]:
    """Returns a stage and its options from a process's arguments, the first of which is its name."""
    name, *rest = arguments
    if name not in STAGES:
        raise SystemExit(f"{name!r} is no stage; there are {', '.join(STAGES)}")
    stage = module(name)
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu stage {name}")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the results")
    parser.add_argument("--named", default=name, help="the stage's name in the results")
    parser.add_argument("--end", type=float, help="time on the monotonic clock at which it ends itself")
    stage.options(parser)
    return stage, parser.parse_args(rest)


def main(arguments: Sequence[str]) -> int:
    """Runs a stage; an error that it raises becomes a row.

    Returns:
        The exit status.
    """
    stage, options = parsed(arguments)
    rows = Rows(options.out, options.named)
    seconds = _SECONDS if options.end is None else max(options.end - time.monotonic(), 1.0)
    # A watchdog thread ends a hanging process and prints where it hung.
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        stage.run(Run(rows, options.out, time.monotonic() + _SHARE * seconds), options)
    except BaseException as error:
        rows.write("failed", **described(error))
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 0


def described(error: BaseException) -> dict[str, str]:
    """Returns an error's text and trace, shortened, as a row's entries."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return {"error": text[:_LENGTH], "trace": "".join(traceback.format_exception(error))[-_TRACE:]}
