"""The stages without a GPU and at the smallest sizes: ``python -m tests.benchmarks.gpu.small FOLDER stage ...``.

Triton's interpreter stands in for the GPU. In a process of its own it computes nothing, since that would take too long.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from benchmarks.gpu.blocks import Block, Level
from benchmarks.gpu.device import Ran
from benchmarks.gpu.stages import about, gradients, host, training
from tests.fusion.capture import captured
from tests.ops.triton.programs import shrink_depthwise
from torch import Tensor
from triton.runtime.interpreter import GridExecutor

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import blocks, networks, stage
from exda_primitives.models import Restormer
from exda_primitives.workbench.bench import bandwidth_floor
from exda_primitives.workbench.bench import networks as bench

STRIPS = [Block("L1", 4, 1, 2, 4), Block("L1-odd", 4, 2, 4, 3, bias=True, norm="BiasFree")]


class Recorded:
    """A captured forward pass: records its operators' calls and replays them."""

    def __init__(self, forward: Callable[[], Tensor]) -> None:
        self._replay, self.output = captured(lambda _: forward(), torch.empty(0))

    @torch.no_grad()
    def __call__(self) -> None:
        self._replay()


class Cpu:
    """The CPU, with the interface that the stages use of a GPU."""

    torch = torch.device("cpu")

    def wait(self) -> None:
        pass

    def captured(self, forward: Callable[[], Tensor]) -> Recorded:
        return Recorded(forward)

    def kernels(self, forward: Callable[[], Tensor]) -> list[Ran]:
        ran: list[Ran] = []
        execute = GridExecutor.__call__

        def timed(executor: GridExecutor, *args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            out = execute(executor, *args, **options)
            ran.append(Ran(executor.fn.__name__, time.perf_counter() - begun))
            return out

        with mock.patch.object(GridExecutor, "__call__", timed):
            forward()
        return ran


def shrink(patch: pytest.MonkeyPatch, scratch: Path) -> None:
    """Makes everything small, and lets the stages find the CPU as their device."""
    few = {"num_blocks": (1, 0, 0, 0), "num_refinement_blocks": 0, "heads": (2, 1, 1, 1)}
    patch.setitem(bench.BACKBONES, "restormer", partial(Restormer, dim=4, ffn_expansion_factor=1, **few))
    patch.setattr(blocks, "LEVELS", ())
    patch.setattr(blocks, "LAST", Level("R", 4, 2, 1, 1))
    patch.setattr(blocks, "_EXPANSION", 1.0)
    patch.setattr(blocks, "strips", lambda: STRIPS)
    patch.setattr(gradients, "SIDE", 4)
    patch.setattr(training, "SIDE", 8)
    for module in (training, gradients):
        patch.setattr(module, "BATCH", 1)
    patch.setattr(host, "SIDE", 8)
    patch.setattr(host, "_ADDITIONS", 20)
    patch.setattr(about, "SIDE", 64)
    patch.setattr(bandwidth_floor, "_BYTES", {"cpu": 2**16})
    patch.setattr(networks, "scratch", lambda: scratch)
    patch.setattr(networks, "_THREADS", torch.get_num_threads())
    patch.setattr(stage, "find", Cpu)
    shrink_depthwise(patch)


def compute_nothing(patch: pytest.MonkeyPatch) -> None:
    """Starts kernels without computing: their outputs keep what was there."""
    patch.setattr(GridExecutor, "__call__", lambda *args, **options: None)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        shrink(patching, Path(sys.argv[1]))
        compute_nothing(patching)
        sys.exit(command.main(sys.argv[2:]))
