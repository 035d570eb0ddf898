"""What a CUDA GPU alone can do, behind one name, so that the stages can be tried without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from exda_primitives.workbench.bench.steps import Captured, Step

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Ran:
    """A kernel that ran once.

    Attributes:
        name: of the kernel.
        seconds: on the GPU.
    """

    name: str
    seconds: float


class Replay(Protocol):
    """A captured forward pass."""

    output: Tensor

    def __call__(self) -> object:
        """Fills ``output`` anew."""


class Device(Protocol):
    """Where all stages run."""

    torch: torch.device

    def wait(self) -> None:
        """Until all work is done."""

    def captured(self, forward: Forward) -> Replay:
        """A forward pass without Python."""

    def kernels(self, forward: Forward) -> list[Ran]:
        """All kernels of one pass, in the order in which they started."""


class Gpu:
    """The current CUDA device."""

    torch = torch.device("cuda")

    def wait(self) -> None:
        torch.cuda.synchronize()

    def captured(self, forward: Forward) -> Replay:
        # It is called, and asked for nothing else.
        return Captured(cast(Step, forward), None)

    def kernels(self, forward: Forward) -> list[Ran]:
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as profile:
            forward()
            self.wait()
        events = [event for event in profile.events() if event.device_type == torch._C._autograd.DeviceType.CUDA]
        events.sort(key=lambda event: event.time_range.start)
        return [Ran(event.name, event.time_range.elapsed_us() / 1e6) for event in events]


def find() -> Device:
    """The GPU.

    Raises:
        RuntimeError: where PyTorch finds none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA device; run this on a machine with a GPU")
    return Gpu()
