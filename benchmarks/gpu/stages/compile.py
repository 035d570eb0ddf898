"""Compiles a share of a call's kernels for compute capability 9.0, as a launch would, without using a GPU."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

from .. import specs
from ..driver import Driver
from ..launches import Recording, Spec, argument
from ..stage import Run, described

SHARED_MEMORY = 227 * 1024
"""Largest shared memory of a program (thread block) at compute capability 9.0, in bytes."""

Job = tuple[Spec, JITFunction, dict[str, Any]]
"""A launch, its kernel, and the options that a configuration sets."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--call", required=True, help="call whose launches are compiled")
    parser.add_argument("--share", default="0/1", metavar="INDEX/OF", help="share of them that is compiled")


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    return ()


def run(run: Run, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    driver.set_active(Driver())
    index, of = map(int, options.share.split("/"))
    pool = Pool()
    begun, done, failed, left, stubs = time.perf_counter(), 0, 0, 0, True
    # Every ``of``-th job: the most important ones come first in all shares.
    for spec, kernel, config in list(jobs(specs.read()[options.call]))[index::of]:
        if run.left() < 0:
            left += 1
            continue
        where = {"kernel": spec["kernel"], "config": config, "arguments": spec["arguments"]}
        try:
            made = compiled(spec, kernel, config, pool)
        except Exception as error:
            failed += 1
            run.rows.write("does not compile", **where, **described(error))
            continue
        done += 1
        if made.metadata.shared > SHARED_MEMORY:
            run.rows.write("does not fit", **where, error=f"{made.metadata.shared} bytes of shared memory")
        stubs = stubs and _launcher(run, made)
    seconds = time.perf_counter() - begun
    run.rows.write("compiled", share=options.share, kernels=done, failed=failed, left=left, process_seconds=seconds)


def jobs(launches: Iterable[Spec]) -> Iterator[Job]:
    """Yields a job for each executable that the launches need."""
    for spec in launches:
        kernel = getattr(importlib.import_module(spec["module"]), spec["kernel"])
        configs = kernel.configs if spec["all"] else kernel.configs[:1]
        yield from ((spec, kernel.fn, config.all_kwargs() | spec["options"]) for config in configs)


def compiled(spec: Spec, kernel: JITFunction, config: dict[str, Any], pool: Pool) -> CompiledKernel:
    """Compiles and returns what the launch would start in this configuration."""
    arguments = {name: argument(plain, pool.tensor) for name, plain in spec["arguments"].items()}
    return kernel.run(grid=(1,), warmup=True, **arguments, **config)


def _launcher(run: Run, made: Any) -> bool:
    """Compiles the C function that starts a kernel, one per signature; returns whether that works on this machine."""
    from triton.backends.nvidia.driver import CudaLauncher  # noqa: PLC0415

    try:
        CudaLauncher(made.src, made.metadata)
    except Exception as error:
        # Then the first launch compiles it, on a machine with a driver.
        run.rows.write("no launchers", **described(error))
        return False
    return True


class Pool:
    """Makes placeholder tensors that nobody reads: for each dtype one, also as a view at an unaligned address."""

    def __init__(self) -> None:
        self._made: dict[torch.dtype, torch.Tensor] = {}

    def tensor(self, dtype: torch.dtype, aligned: bool) -> torch.Tensor:
        if dtype not in self._made:
            self._made[dtype] = torch.empty(32, dtype=dtype)
        return self._made[dtype][0 if aligned else 1 :]
