"""Mocks a GPU: Python does all its work up to a kernel's start, but nothing is compiled or computed."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from triton import compiler
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

from benchmarks.gpu import kernels
from benchmarks.gpu.driver import Driver
from benchmarks.gpu.launches import as_on_a_gpu
from exda_primitives.ops.triton import config_cache
from exda_primitives.ops.triton.kernel import Kernel


@contextmanager
def launches(tf32: bool = False) -> Iterator[Counter[str]]:
    """A region in which the library's kernels are started on CPU tensors; their outputs stay uninitialised.

    Args:
        tf32: whether float32 products may be rounded to TF32.

    Yields:
        The number of starts of each kernel, by name.

    Raises:
        RuntimeError: under Triton's interpreter, which does other work before a kernel starts.
    """
    if kernels.JITTED is not JITFunction:
        raise RuntimeError("kernel starts cannot be mocked under Triton's interpreter; unset TRITON_INTERPRET")
    started: Counter[str] = Counter()

    def compiled(source: Any, *_: Any, **__: Any) -> CompiledKernel:
        return Compiled(source.fn.fn.__name__, started)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(driver, "_active" if hasattr(driver, "_active") else "active", Driver()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # An empty folder: choices of the mocked tuning must not get into the real cache.
        stack.enter_context(mock.patch.object(config_cache, "folder", return_value=folder))
        stack.enter_context(mock.patch.object(compiler, "compile", compiled))
        for kernel in kernels.all_of_them():
            stack.enter_context(mock.patch.object(kernel, "do_bench", _equal))
            stack.callback(_forget, kernel)
            _forget(kernel)
        stack.enter_context(as_on_a_gpu(tf32))
        yield started


def _equal(call: Callable[[], object], quantiles: Sequence[float]) -> list[float]:
    return [1.0] * len(quantiles)


def _forget(kernel: Kernel) -> None:
    kernel.forget()
    # Triton's own cache of compiled kernels; its name depends on the version.
    if hasattr(kernel.fn, "device_caches"):
        kernel.fn.device_caches.clear()
    else:
        kernel.fn.cache.clear()
        kernel.fn.binder = None


class Compiled(CompiledKernel):  # type: ignore[misc]
    """Stands in for a compiled kernel and counts its starts."""

    def __init__(self, name: str, started: Counter[str]) -> None:
        self.module, self.function, self.packed_metadata = None, 0, ()
        self.name, self.started = name, started

    def start(self, *values: Any) -> None:
        """Counts a start; takes what the driver would be given."""
        self.started[self.name] += 1

    @property
    def run(self) -> Any:
        """The function that starts the kernel."""
        return self.start

    def _init_handles(self) -> None:
        pass

    def launch_metadata(self, grid: object, stream: object, *args: object) -> None:
        """Returns no metadata for profilers."""
