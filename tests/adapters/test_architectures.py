"""User-defined architectures for models.create."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.models.blocks import Attention

from .process import run


class Toy(nn.Module):
    def __init__(self, dim: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 1)
        self.attn = Attention(dim, heads, bias=False)


def infer(state: exda.StateShapes) -> dict[str, Any]:
    return {"dim": state.size("stem.weight"), "heads": state.size("attn.temperature")}


TOY = exda.Architecture("toy", Toy, infer, {"toy": {}, "toy-wide": {"dim": 16, "heads": 4}})


def test_registered_architecture_is_listed_built_and_identified(tmp_path: Path) -> None:
    exda.register_adapter(TOY)
    assert exda.models.list_models()[-2:] == ["toy", "toy-wide"]
    wide = exda.models.create("toy-wide")
    assert (wide.attn.qkv.in_channels, wide.attn.num_heads) == (16, 4)
    torch.save({"params": wide.state_dict()}, tmp_path / "wide.pth")
    identity = exda.models.identify(tmp_path / "wide.pth")
    assert (identity.architecture, identity.arguments) == (TOY, {"dim": 16, "heads": 4})
    made = exda.models.create(checkpoint=tmp_path / "wide.pth")
    assert torch.equal(made.attn.qkv.weight, wide.attn.qkv.weight)


def test_architecture_that_infers_nothing_does_not_claim_other_files(tmp_path: Path) -> None:
    exda.register_adapter(exda.Architecture("generous", Toy, lambda state: {}))
    path = tmp_path / "model.pth"
    torch.save(exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1]).state_dict(), path)
    assert exda.models.identify(path).architecture.name == "restormer"
    torch.save(Toy(dim=16).state_dict(), path)
    with pytest.raises(exda.CheckpointError, match=r"generous: \S+ has shape \(.*16.*\), expected \(.*8.*\)"):
        exda.models.identify(path)


def test_taken_name_is_refused() -> None:
    with pytest.raises(exda.RegistrationError, match="the name 'restormer' is taken"):
        exda.register_adapter(exda.Architecture("restormer", Toy, infer))


def test_own_architectures_are_known_without_further_imports() -> None:
    assert "promptir" in run(sys.executable, "-c", "import exda_primitives as exda; print(exda.models.list_models())")
