"""Shares of the time that blocks and their fused parts take."""

import pytest
import torch
from tests.workbench.bench.stubs import CPU
from torch import nn

from exda_primitives.fusion.report import FusedMatch, FusedStep, FusionReport
from exda_primitives.workbench.bench import share as module
from exda_primitives.workbench.bench.share import share

CLOCK = {"time": 0.0}


class Taking(nn.Module):
    """Takes some seconds of a fake clock, in addition to those of its parts."""

    def __init__(self, seconds: float, **parts: nn.Module) -> None:
        super().__init__()
        self.weight, self.seconds = nn.Parameter(torch.zeros(1)), seconds
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.children():
            x = part(x)
        CLOCK["time"] += self.seconds
        return x


def block() -> Taking:
    return Taking(1, norm1=Taking(2), attn=Taking(4), norm2=Taking(8), other=Taking(16))


def test_shares_of_blocks_and_of_their_fused_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "perf_counter", lambda: CLOCK["time"])
    again = block()
    network = Taking(38, first=block(), second=again, third=again)
    steps = (FusedStep("norm1", "attn", "attention"), FusedStep("norm2", "other", "any function"))
    blocks = (FusedMatch("first", (), steps), FusedMatch("second", ("third",), steps))
    report = FusionReport("Taking", blocks, (), (), ())
    # The block with two names is one child, and is called once.
    found = share(network, lambda: network(torch.zeros(1, device=CPU)), report)
    assert found.blocks == pytest.approx(2 * 31 / (2 * 31 + 38))
    # In a step of any other function only the norm is fused.
    assert found.fused == pytest.approx(2 * (2 + 4 + 8) / (2 * 31 + 38))


def test_the_fastest_of_the_passes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "perf_counter", lambda: CLOCK["time"])
    network = Taking(1, body=Taking(3))
    report = FusionReport("Taking", (FusedMatch("body", (), ()),), (), (), ())
    extra = iter((50.0, 0.0, 20.0))

    def step() -> None:
        network.seconds = 1 + next(extra)
        network(torch.zeros(1))

    assert share(network, step, report) == module.Share(0.75, 0.0)
