"""Eager steps and, with a fake of CUDA's graphs, captured ones."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.workbench.bench.stubs import CPU
from torch import Tensor

from exda_primitives.workbench.bench.networks import Networks
from exda_primitives.workbench.bench.precision import FLOAT32, PRECISIONS
from exda_primitives.workbench.bench.steps import Bench, Captured, Step
from exda_primitives.workbench.bench.training import TrainingStep

TINY = Networks.build("restormer-tiny")


class Doubling:
    """A step that fills its output anew at every call."""

    def __init__(self) -> None:
        self.calls = 0
        self.image = torch.ones(2)
        self.output = torch.empty(2)

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.mul(self.image, 2, out=self.output)

    def signals(self) -> dict[str, Tensor]:
        return {"output": self()}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for CUDA: nothing is captured, and replays are counted."""
    made: list[Any] = []

    class Graph:
        replays = 0

        def __init__(self) -> None:
            made.append(self)

        def replay(self) -> None:
            self.replays += 1

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stub in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda of: nullcontext(),
        "synchronize": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "CUDAGraph": Graph,
        "graph": lambda graph, pool: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    return made


def test_a_capture_follows_warm_ups_and_is_replayed(graphs: list[Any]) -> None:
    step = Doubling()
    captured = Captured(step, None)
    # Three warm-ups and the capture.
    assert step.calls == 3 + 1
    assert captured.signals()["output"].tolist() == [2, 2]
    captured()
    assert step.calls == 3 + 1
    assert graphs[0].replays == 2


def test_what_a_graph_reads_is_kept(graphs: list[Any]) -> None:
    step = Doubling()
    image = weakref.ref(step.image)
    captured = Captured(step, None)
    del step
    gc.collect()
    assert image() is not None
    del captured
    gc.collect()
    assert image() is None


def training_step(precision: str) -> Step:
    bench = Bench.of(CPU, "training", 1, 16, 16)
    placed = bench.place(TINY.of("torch"), "torch", PRECISIONS[precision])
    assert {parameter.dtype for parameter in placed.parameters()} == {torch.float32}
    return bench.step(placed, "torch", PRECISIONS[precision])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_signals_change_no_weights_and_a_step_does(precision: str) -> None:
    step = training_step(precision)
    first, second = step.signals(), step.signals()
    assert first.keys() == dict(TINY.of("torch").named_parameters()).keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    step()
    third = step.signals()
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_gradient_that_overflows_is_scaled_down() -> None:
    # With PyTorch's first scale, 65536, the gradient of a bias is 4.5 / 3 * 65536, and 65504 is the largest float16.
    model = torch.nn.Conv2d(3, 3, 1)
    image = torch.rand(1, 3, 8, 8)
    signals = TrainingStep(model, model, image, 5 * torch.ones_like(image), PRECISIONS["fp16"]).signals()
    assert all(gradient.isfinite().all() for gradient in signals.values())
    exact = TrainingStep(model, model, image, 5 * torch.ones_like(image), FLOAT32).signals()
    for name, gradient in exact.items():
        torch.testing.assert_close(signals[name], gradient, rtol=2e-3, atol=1e-4)


def test_images_are_the_same_in_every_bench() -> None:
    first, second = (Bench.of(CPU, "forward", 2, 8, 16) for _ in range(2))
    assert first.image.shape == (2, 3, 8, 16)
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.image, first.target)
