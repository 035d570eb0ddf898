"""One stage in this process: what it is given, and what becomes of its errors."""

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

from exda_primitives.workbench.bench.memory import tidy

from .device import Device, find
from .launches import Recording
from .rows import Rows

STAGES = ("about", "compile", "correct", "gradients", "harness", "host", "networks", "ratio", "training")

_LENGTH = 400
_TRACE = 1200
"""Characters of an error and of where it happened that a row holds."""
_SHARE = 0.85
"""Of a stage's time in which it begins something new."""
_STDERR = 2
"""What is written into the log, whoever has taken ``sys.stderr``."""
_SECONDS = 600.0
"""Of one that is run by hand."""


@dataclass
class Run:
    """What a stage works with.

    Attributes:
        rows: where its results go.
        folder: for what is no row.
        end: when nothing new is begun, on the monotonic clock.
    """

    rows: Rows
    folder: Path
    end: float

    @cached_property
    def device(self) -> Device:
        """The GPU, when it is first asked for: not every stage needs one."""
        return find()

    def left(self) -> float:
        """Seconds in which something new may begin."""
        return self.end - time.monotonic()

    @contextmanager
    def surviving(self, **where: Any) -> Iterator[None]:
        """Makes a row of an error in the region.

        Args:
            where: what was tried, for the row.

        Raises:
            RuntimeError: PyTorch's own, where no kernel can run in this process any more.
        """
        # Without a GPU nothing that follows can be done.
        device = self.device
        try:
            yield
        except Exception as error:
            self.rows.write("error", **where, **described(error))
        else:
            return
        # Outside of the clause above: the error holds on to all that it was raised amidst.
        device.wait()
        tidy(device.torch)


class Stage(Protocol):
    """What a module of ``stages`` has."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Adds its options."""

    def run(self, run: Run, options: argparse.Namespace) -> None:
        """Measures."""

    def recordings(self, options: argparse.Namespace) -> Iterable[Recording]:
        """What it starts kernels for, in order to compile them ahead."""


def module(name: str) -> Stage:
    """Of a name in ``STAGES``."""
    return cast(Stage, importlib.import_module(f".stages.{name}", __package__))


def parsed(arguments: Sequence[str]) -> tuple[Stage, argparse.Namespace]:
    """A stage and its options, of the arguments that a process is started with: its name first."""
    name, *rest = arguments
    if name not in STAGES:
        raise SystemExit(f"{name!r} is no stage; there are {', '.join(STAGES)}")
    stage = module(name)
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu stage {name}")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the results")
    parser.add_argument("--named", default=name, help="the stage's name in the results")
    parser.add_argument("--end", type=float, help="when it ends itself, on the system's monotonic clock")
    stage.options(parser)
    return stage, parser.parse_args(rest)


def main(arguments: Sequence[str]) -> int:
    """Runs a stage; whatever it raises becomes a row.

    Returns:
        The exit status.
    """
    stage, options = parsed(arguments)
    rows = Rows(options.out, options.named)
    seconds = _SECONDS if options.end is None else max(options.end - time.monotonic(), 1.0)
    # From another thread, with a trace of where it hung.
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
    """In words."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return {"error": text[:_LENGTH], "trace": "".join(traceback.format_exception(error))[-_TRACE:]}
