"""Profiles a forward pass: its kernels, the time of each and the bytes that it moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from exda_primitives.ops.triton.kernel import Grid, Kernel
from exda_primitives.ops.triton.recorded import step_by_step

from . import kernels
from .device import Device, Forward

_LONGEST = 25
"""Number of kernels that are listed; the others are summed up."""


@dataclass(frozen=True)
class Pass:
    """All launches of one kernel in a forward pass.

    Attributes:
        kernel: name of the kernel.
        launches: number of launches.
        ms: time of all launches.
        megabytes: what all launches move at least, see ``kernels.moved_bytes``; None for a kernel of PyTorch's.
        terabytes_per_second: ``megabytes`` over ``ms``; None where ``megabytes`` is.
    """

    kernel: str
    launches: int
    ms: float
    megabytes: float | None
    terabytes_per_second: float | None


def passes(device: Device, forward: Forward) -> list[Pass]:
    """Runs a forward pass twice and returns one entry per kernel, the slowest first."""
    # Once beforehand, so that tuning and compilation are not counted.
    forward()
    device.wait()
    with _bytes_of_launches() as moved:
        ran = device.kernels(forward)
    seconds: dict[str, list[float]] = defaultdict(list)
    for each in ran:
        seconds[each.name].append(each.seconds)
    found = [_pass(name, times, moved.get(name)) for name, times in seconds.items()]
    found.sort(key=lambda each: -each.ms)
    return found


def shortened(found: list[Pass]) -> list[Pass]:
    """Returns the slowest kernels, and one entry for the sum of all others."""
    rest = found[_LONGEST:]
    launches, ms = sum(each.launches for each in rest), sum(each.ms for each in rest)
    return [*found[:_LONGEST], *([Pass("all others", launches, ms, None, None)] if rest else [])]


def _pass(name: str, times: list[float], moved: int | None) -> Pass:
    total = sum(times)
    return Pass(
        name,
        len(times),
        1e3 * total,
        None if moved is None else moved / 1e6,
        None if moved is None or not total else moved / total / 1e12,
    )


@contextmanager
def _bytes_of_launches() -> Iterator[dict[str, int]]:
    """Yields a dict that collects the moved bytes of all launches in the region, by kernel."""
    moved: dict[str, int] = defaultdict(int)

    start = Kernel.run

    def run(kernel: Kernel, grid: Grid, *args: Any, **options: Any) -> None:
        arguments = {**dict(zip(kernel.arg_names, args, strict=False)), **options}
        moved[kernel.__name__] += kernels.moved_bytes(arguments)
        start(kernel, grid, *args, **options)

    with step_by_step(), mock.patch.object(Kernel, "run", run):
        yield moved
