"""What is done again and again: a forward pass or a training step, as it is, compiled or captured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .cases import COMPILED, EAGER, ONNX, TRAINING
from .networks import computing, ready
from .onnx import exported
from .precision import Precision
from .training import TrainingStep

Signals = dict[str, Tensor]
"""What a case is judged by, on the CPU: its output, or the gradient of every parameter."""

_WARM_UPS = 3
"""Passes before a capture, as PyTorch's documentation of CUDA graphs has them."""


class Step(Protocol):
    """What is timed."""

    def __call__(self) -> object:
        """Once."""

    def signals(self) -> Signals:
        """What it computes."""


class Forward:
    """A forward pass without gradients."""

    def __init__(self, forward: Callable[[Tensor], Tensor], image: Tensor) -> None:
        self.forward, self.image = forward, image

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The restored image."""
        return self.forward(self.image)

    def signals(self) -> Signals:
        """The restored image, by the name ``output``."""
        return {"output": self().cpu()}


class Captured:
    """The replay of a CUDA graph of a forward pass.

    Args:
        step: of static shape, input and weights.
        pool: memory that all graphs of a comparison share: they are replayed one at a time, each makes all of its
            intermediate maps again, and its output is read right after its own replay.
    """

    def __init__(self, step: Step, pool: Any) -> None:
        # The graph reads the memory of weights and image, and does not keep it.
        self.step = step
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        current.wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            output = step()
        assert isinstance(output, Tensor)
        self.output = output

    def __call__(self) -> None:
        """All kernels at once."""
        self.graph.replay()

    def signals(self) -> Signals:
        """The restored image, by the name ``output``."""
        self()
        return {"output": self.output.cpu()}


class _Computing:
    """A step under the backend of its variant."""

    def __init__(self, step: Step, variant: str) -> None:
        self.step, self.variant = step, variant

    def __call__(self) -> object:
        with computing(self.variant):
            return self.step()

    def signals(self) -> Signals:
        with computing(self.variant):
            return self.step.signals()


@dataclass(frozen=True)
class Bench:
    """Where and on what all cases of a comparison run.

    Attributes:
        device: for all.
        task: ``"forward"`` or ``"training"``.
        image: (B, C, H, W) in [0, 1], on the CPU in float64.
        target: likewise.
    """

    device: torch.device
    task: str
    image: Tensor
    target: Tensor

    @classmethod
    def of(cls, device: torch.device, task: str, batch: int, height: int, width: int, channels: int = 3) -> Bench:
        """With noise, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        image, target = torch.rand(2, batch, channels, height, width, generator=generator, dtype=torch.float64)
        return cls(device, task, image, target)

    def place(self, model: nn.Module, variant: str, precision: Precision) -> nn.Module:
        """A copy of ``model`` as ``step`` needs it."""
        return ready(model, variant, self.device, self._weights(precision))

    def step(self, placed: nn.Module, variant: str, precision: Precision, mode: str = EAGER) -> Step:
        """The step of what ``place`` gave.

        Args:
            placed: the network.
            variant: that it is.
            precision: of the step.
            mode: eager, compiled or onnxruntime.

        Raises:
            ExDAError: where onnxruntime cannot run it.
        """
        image, target = (x.to(self.device, self._weights(precision)) for x in (self.image, self.target))
        forward: Callable[[Tensor], Tensor] = placed
        if mode == COMPILED:
            forward = torch.compile(placed, dynamic=False)
        elif mode == ONNX:
            with computing(variant):
                forward = exported(placed, image)
        if self.task == TRAINING:
            return _Computing(TrainingStep(placed, forward, image, target, precision), variant)
        return _Computing(Forward(forward, image), variant)

    def signals(self, model: nn.Module, variant: str, precision: Precision) -> Signals:
        """What a copy of ``model`` computes, as it is."""
        with precision.settings():
            return self.step(self.place(model, variant, precision), variant, precision).signals()

    def _weights(self, precision: Precision) -> torch.dtype:
        return torch.float32 if self.task == TRAINING and precision.half else precision.dtype
