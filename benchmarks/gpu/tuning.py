"""Reports or shortens the tuning of kernels, and checks that all configurations of a kernel agree."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor

from exda_primitives.ops.triton.kernel import Grid, Kernel
from exda_primitives.ops.triton.recorded import step_by_step

from . import kernels
from .rows import Rows

Original = Callable[..., None]
"""The unpatched ``Kernel.run``."""

OUTPUTS = frozenset({"dg", "dk", "dq", "dx", "dx0", "dx1", "dx2", "out", "partial", "partials"})
"""Names of the arguments that tuned kernels write to."""

TOLERANCE = {2: 2.0, 4: 2e-3}
"""Bytes per number -> allowed ``difference``. For 16 bits it is in units of the format's epsilon: two roundings of the
same sum may be one apart. For 32 bits, products may be rounded to TF32."""

_WARM_UP, _REPEAT = 5, 25
"""Milliseconds per configuration; Triton's defaults, 25 and 100, would take more of a stage's time."""


def first_configuration() -> None:
    """Makes every kernel of this process use its first configuration, which should suit every case, without tuning."""
    for kernel in kernels.tuned():
        kernel.configs = kernel.configs[:1]


def briefly() -> None:
    """Makes tuning in this process time each configuration for a shorter time."""
    _time_by(lambda call, quantiles: triton.testing.do_bench(call, _WARM_UP, _REPEAT, quantiles=quantiles))


def untimed() -> None:
    """Makes tuning in this process run each configuration once and take all for equally fast."""

    def once(call: Callable[[], object], quantiles: Sequence[float]) -> list[float]:
        call()
        return [1.0] * len(quantiles)

    _time_by(once)


def _time_by(timer: Callable[[Callable[[], object], Sequence[float]], Any]) -> None:
    for kernel in kernels.tuned():
        kernel.do_bench = timer


@contextmanager
def reported(rows: Rows) -> Iterator[None]:
    """A region in which each choice of a kernel's configuration becomes a row, with the times of all configurations."""

    def run(kernel: Kernel, original: Original, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        known, begun = kernel.timings, time.perf_counter()
        original(kernel, grid, *args, **options)
        # A new dict of timings: this launch has tuned the kernel.
        if kernel.timings is not known:
            seconds = time.perf_counter() - begun
            _report(rows, kernel, kernel.kind(args, options), _named(kernel, args, options), seconds)

    with _around(run):
        yield


def _report(rows: Rows, kernel: Kernel, key: str, arguments: dict[str, Any], seconds: float) -> None:
    times = {str(config): found for config, found in kernel.timings.items()}
    best = min(times, key=lambda config: times[config])
    moved = kernels.moved_bytes(arguments)
    rows.write(
        "tuned",
        kernel=kernel.__name__,
        key=key,
        shapes={name: list(each.shape) for name, each in kernels.tensors(arguments).items()},
        best=best,
        ms=times[best],
        terabytes_per_second=moved / times[best] / 1e9,
        ms_of_all=times,
        seconds=seconds,
    )


class Agreement:
    """Runs all configurations of a kernel on poisoned outputs and compares them with what the chosen one wrote.

    Attributes:
        compared: number of configurations that were run.
        disagreeing: number of those whose output differs from the chosen one's, or is not known.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self.compared, self.disagreeing = rows, 0, 0
        self._seen: set[tuple[str, ...]] = set()

    @contextmanager
    def checked(self) -> Iterator[None]:
        """A region in which each new kind of launch (kernel, options, shapes and dtypes) is checked."""
        with _around(self._run):
            yield

    def _run(
        self, kernel: Kernel, original: Original, grid: Grid, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        original(kernel, grid, *args, **options)
        if not kernel.tunes:
            return
        arguments = _named(kernel, args, options)
        key = (
            kernel.__name__,
            *(f"{name} {value}" for name, value in options.items()),
            *(f"{name} {each.dtype} {tuple(each.shape)}" for name, each in kernels.tensors(arguments).items()),
        )
        if key not in self._seen:
            self._seen.add(key)
            self._compare(kernel, grid, args, options, kernels.tensors(arguments))

    def _compare(
        self, kernel: Kernel, grid: Grid, args: tuple[Any, ...], options: dict[str, Any], tensors: dict[str, Tensor]
    ) -> None:
        outputs = {name: each for name, each in tensors.items() if name in OUTPUTS}
        chosen = {name: each.clone() for name, each in outputs.items()}
        for config in kernel.configs:
            self.compared += 1
            # Poisoned, so that an element that is not written shows.
            for each in outputs.values():
                each.fill_(math.nan)
            try:
                kernel.start(config, grid, args, options)
                apart = {name: difference(each, chosen[name]) for name, each in outputs.items()}
            except triton.runtime.errors.OutOfResources as error:
                # Not an error: tuning leaves such a configuration out as well.
                self.rows.write("does not fit", kernel=kernel.__name__, config=str(config), error=str(error))
                continue
            wrong = {name: each for name, each in apart.items() if not each <= tolerance(outputs[name])}
            if wrong or not outputs:
                self.disagreeing += 1
                self.rows.write(
                    "disagrees",
                    kernel=kernel.__name__,
                    config=str(config),
                    differences=wrong,
                    unwritten={name: int(outputs[name].isnan().sum()) for name in wrong},
                    shapes={name: list(each.shape) for name, each in tensors.items()},
                )
        # The pass goes on with what the chosen configuration wrote.
        for name, each in outputs.items():
            each.copy_(chosen[name])


def difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference over the largest expected magnitude; NaN if anything found is not finite."""
    if not (found.numel() and bool(found.isfinite().all())):
        return math.nan if found.numel() else 0.0
    largest = float(expected.double().abs().max())
    return float((found.double() - expected.double()).abs().max()) / (largest or 1.0)


def tolerance(output: Tensor) -> float:
    """Returns the ``difference`` that is allowed for an output of this dtype."""
    half = output.element_size() == 2
    return TOLERANCE[output.element_size()] * (torch.finfo(output.dtype).eps if half else 1.0)


def _named(kernel: Kernel, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(kernel.arg_names, args, strict=False)), **options}


@contextmanager
def _around(run: Callable[[Kernel, Original, Grid, tuple[Any, ...], dict[str, Any]], None]) -> Iterator[None]:
    original = Kernel.run

    def replaced(kernel: Kernel, grid: Grid, *args: Any, **options: Any) -> None:
        run(kernel, original, grid, args, options)

    with step_by_step(), mock.patch.object(Kernel, "run", replaced):
        yield
