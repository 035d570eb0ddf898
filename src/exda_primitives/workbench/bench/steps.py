"""The steps that are timed: a forward pass (eager, compiled, captured or by onnxruntime) or a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from . import onnx, openvino
from .cases import COMPILED, EAGER, EXPORTED, ONNX, TRAINING
from .networks import copy_for_variant, variant_backend
from .precision import Precision
from .training import TrainingStep

Signals = dict[str, Tensor]
"""The tensors that a case is checked by, on the CPU: its output, or the gradient of every parameter by name."""

_WARM_UPS = 3
"""Passes before a capture, as many as in PyTorch's documentation of CUDA graphs."""


class Step(Protocol):
    """A step that can be timed and checked."""

    def __call__(self) -> object:
        """Runs the step once."""

    def signals(self) -> Signals:
        """Runs the step and returns what it computes, on the CPU."""


class Forward:
    """A forward pass without gradients."""

    def __init__(self, forward: Callable[[Tensor], Tensor], image: Tensor) -> None:
        self.forward, self.image = forward, image

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Returns the restored image."""
        return self.forward(self.image)

    def signals(self) -> Signals:
        """Returns the restored image under the name ``output``, on the CPU."""
        return {"output": self().cpu()}


class Captured:
    """Captures a forward pass as a CUDA graph and replays it.

    Args:
        step: the forward pass; its shape, input and weights stay in place.
        pool: memory pool for the graph. All graphs of a comparison may share one, because they are replayed one at a
            time, each recomputes all of its intermediate maps, and its output is read right after its own replay.
    """

    def __init__(self, step: Step, pool: Any) -> None:
        # The graph reads weights and image by address and does not keep them alive; this reference does.
        self.step = step
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        current.wait_stream(side)
        torch.cuda.synchronize()
        # `Peak.so_far` then returns the peak of the capture, where the graph's memory is allocated.
        torch.cuda.reset_peak_memory_stats()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            output = step()
        assert isinstance(output, Tensor)
        self.output = output

    def __call__(self) -> None:
        """Replays the graph."""
        self.graph.replay()

    def signals(self) -> Signals:
        """Returns the restored image under the name ``output``, on the CPU."""
        self()
        return {"output": self.output.cpu()}


class _WithBackend:
    """Runs a step with the backend of its variant."""

    def __init__(self, step: Step, variant: str) -> None:
        self.step, self.variant = step, variant

    def __call__(self) -> object:
        with variant_backend(self.variant):
            return self.step()

    def signals(self) -> Signals:
        with variant_backend(self.variant):
            return self.step.signals()


@dataclass(frozen=True)
class Bench:
    """The device, task and images that all cases of a comparison share.

    Attributes:
        device: where the steps run.
        task: ``"forward"`` or ``"training"``.
        image: input, (B, C, H, W) float64 in [0, 1], on the CPU.
        target: target of a training step, in the same form.
    """

    device: torch.device
    task: str
    image: Tensor
    target: Tensor

    @classmethod
    def of(cls, device: torch.device, task: str, batch: int, height: int, width: int, channels: int = 3) -> Bench:
        """Makes a bench whose image and target are uniform noise, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        image, target = torch.rand(2, batch, channels, height, width, generator=generator, dtype=torch.float64)
        return cls(device, task, image, target)

    def place(self, model: nn.Module, variant: str, precision: Precision) -> nn.Module:
        """Returns a copy of ``model`` that ``step`` can run: on the device, in the weights' dtype, fused if need be."""
        return copy_for_variant(model, variant, self.device, self._weights(precision))

    def step(self, placed: nn.Module, variant: str, precision: Precision, mode: str = EAGER) -> Step:
        """Returns the step of a placed network.

        Args:
            placed: what ``place`` returned.
            variant: its variant, a name in ``cases.VARIANTS``.
            precision: number format of the step.
            mode: eager, compiled, onnxruntime or openvino.

        Raises:
            ExDAError: onnxruntime or OpenVINO cannot run the network.
        """
        image, target = (x.to(self.device, self._weights(precision)) for x in (self.image, self.target))
        forward: Callable[[Tensor], Tensor] = placed
        if mode == COMPILED:
            forward = torch.compile(placed, dynamic=False)
        elif mode in EXPORTED:
            with variant_backend(variant):
                forward = (onnx.exported if mode == ONNX else openvino.compiled)(placed, image)
        if self.task == TRAINING:
            return _WithBackend(TrainingStep(placed, forward, image, target, precision), variant)
        return _WithBackend(Forward(forward, image), variant)

    def signals(self, model: nn.Module, variant: str, precision: Precision) -> Signals:
        """Returns what a copy of ``model`` computes in eager mode."""
        with precision.settings():
            return self.step(self.place(model, variant, precision), variant, precision).signals()

    def _weights(self, precision: Precision) -> torch.dtype:
        # 16-bit training is mixed precision: float32 weights under autocast.
        return torch.float32 if self.task == TRAINING and precision.half else precision.dtype
