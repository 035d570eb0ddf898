"""What only a CUDA GPU can do, behind one protocol, so that tests can run the stages without one."""

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
        name: name of the kernel.
        seconds: its time on the GPU.
    """

    name: str
    seconds: float


class Replay(Protocol):
    """A captured forward pass; ``output`` is the tensor that a call fills."""

    output: Tensor

    def __call__(self) -> object:
        """Runs the pass again, which refills ``output``."""


class Device(Protocol):
    """The device that the stages measure."""

    torch: torch.device

    def wait(self) -> None:
        """Waits until all work on the device is done."""

    def captured(self, forward: Forward) -> Replay:
        """Captures a forward pass, to be replayed without Python."""

    def kernels(self, forward: Forward) -> list[Ran]:
        """Runs a pass and returns its kernels in the order in which they started."""


class Gpu:
    """The current CUDA device."""

    torch = torch.device("cuda")

    def wait(self) -> None:
        torch.cuda.synchronize()

    def captured(self, forward: Forward) -> Replay:
        # ``Captured`` only calls its step here, so that a plain function does.
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
    """Returns the GPU.

    Raises:
        RuntimeError: if PyTorch finds none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA device; run this on a machine with a GPU")
    return Gpu()
