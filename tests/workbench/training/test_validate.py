"""Validation between steps of training."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from exda_primitives.workbench.training.config import RecipeConfig
from exda_primitives.workbench.training.validate import validate


class Pairs(list):
    def set_epoch(self, epoch: int) -> None:
        assert epoch == 0


class Halved(nn.Module):
    """Returns half of what it is given, or what ``fails`` raises."""

    def __init__(self, fails: Exception | None = None) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.BatchNorm2d(1)).eval()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.fails = fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        if self.fails:
            raise self.fails
        return self.scale * x


def validated_psnr(net: nn.Module) -> float:
    fabric = Fabric(accelerator="cpu", devices=1)
    image = torch.full((3, 20, 17), 0.5)
    recipe = RecipeConfig(steps=1)
    return validate(fabric, net, Pairs([(image, 0.5 * image + 0.1)]), recipe).psnr  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", [None, RuntimeError("out of memory")])
def test_every_module_returns_to_its_own_mode(fails: Exception | None) -> None:
    net = Halved(fails)
    if fails is None:
        assert validated_psnr(net) == pytest.approx(20, abs=1e-3)
    else:
        with pytest.raises(RuntimeError, match="out of memory"):
            validated_psnr(net)
    assert net.training
    assert not net.frozen.training
    assert not net.frozen[0].training


def test_training_can_go_on_after_a_validation() -> None:
    net = Halved()
    validated_psnr(net)
    with torch.enable_grad():
        net.train()
        (net.scale * torch.ones(2)).sum().backward()
    assert net.scale.grad is not None
