"""Measures the share of a network's time spent in the blocks that ``fuse`` takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...fusion.report import FusedMatch, FusionReport
from ...fusion.steps import Step

_PASSES = 3
"""The shortest counts: the first pass makes what later ones reuse, and other processes may slow any of them down."""


@dataclass(frozen=True)
class Share:
    """Shares of the time of an unfused forward pass, from 0 to 1.

    Attributes:
        blocks: share of the blocks that ``fuse`` takes, residual sums included.
        fused: share of those parts of the blocks that ``fuse`` computes by kernels: norms, and the functions it knows.
    """

    blocks: float
    fused: float


def share(model: nn.Module, step: Callable[[], object], report: FusionReport) -> Share:
    """Measures the shares by hooks, in separate passes, since hooks take time.

    Args:
        model: the unfused network, to be discarded afterwards: the hooks stay on it.
        step: runs the model once.
        report: report of fusing the same network.
    """
    device = next(model.parameters()).device
    whole, blocks, parts = (_Watch(device) for _ in range(3))
    whole.over(model)
    for block in report.blocks:
        blocks.over(model.get_submodule(block.name))
        for name in _fused_parts(block):
            parts.over(model.get_submodule(f"{block.name}.{name}"))
    passes = []
    for _ in range(_PASSES):
        step()
        passes.append([watch.seconds() for watch in (whole, blocks, parts)])
    total, in_blocks, in_parts = min(passes)
    return Share(in_blocks / total, in_parts / total)


def _fused_parts(block: FusedMatch) -> Iterator[str]:
    for step in block.steps:
        yield step.norm
        # A step of the base class's kind fuses only its norm and runs the host's function as it is.
        if step.kind != Step.kind:
            yield step.function


@dataclass
class _Watch:
    """Sums the time that some modules take; no module may contain another of them."""

    device: torch.device
    spans: list[tuple[Any, Any]] = field(default_factory=list)
    _begun: Any = None

    def over(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def seconds(self) -> float:
        """Returns the seconds since the last call."""
        spans, self.spans = self.spans, []
        if self.device.type != "cuda":
            return sum(end - begun for begun, end in spans)
        torch.cuda.synchronize(self.device)
        return sum(begun.elapsed_time(end) for begun, end in spans) / 1000

    def _start(self, *_: object) -> None:
        self._begun = self._now()

    def _stop(self, *_: object) -> None:
        self.spans.append((self._begun, self._now()))

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
