"""exda plan."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app

NETWORKS = """
from torch import nn
import parts

class Net(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.body = parts.Attention(dim, 2, bias=False)

class Plain(nn.Module):
    pass

class Sized(nn.Module):
    def __init__(self, dim):
        super().__init__()

def small():
    return Net(4)

def nothing():
    return None

number = 3
"""
PARTS = "from exda_primitives.models.blocks import Attention\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "parts.py").write_text(PARTS)
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return path


def plan(target: object) -> Result:
    return CliRunner().invoke(app, ["plan", str(target)], env={"COLUMNS": "200"})


def test_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"params": exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1]).state_dict()}, path)
    result = plan(path)
    assert result.exit_code == 0, result.output
    assert "Restormer: 11 attentions to replace" in result.output


@pytest.mark.parametrize("name", ["Net", "small"])
def test_a_class_or_function_that_imports_a_neighbouring_file(name: str, source: Path) -> None:
    result = plan(f"{source}:{name}")
    assert result.exit_code == 0, result.output
    assert "Net: 1 attentions to replace" in result.output


def test_a_network_with_exda_built_in(source: Path) -> None:
    source.write_text("import exda_primitives as exda\ndef net(): return exda.models.create('exda-tiny', dim=8)\n")
    result = plan(f"{source}:net")
    assert result.exit_code == 0, result.output
    assert "built in: 28" in result.output


def test_nothing_to_patch(source: Path) -> None:
    result = plan(f"{source}:Plain")
    assert result.exit_code == 1
    assert "Plain: 0 attentions" in result.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", "has no 'Missing'; its networks are Net, Plain, Sized"),
        ("number", "has no 'number'"),
        ("Sized", "Sized cannot be called without arguments"),
        ("nothing", "nothing() is a NoneType, no torch.nn.Module"),
    ],
)
def test_names_that_are_no_network_are_refused(name: str, message: str, source: Path) -> None:
    result = plan(f"{source}:{name}")
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("none.py:Net", "none.pth"):
        result = plan(f"{tmp_path}/{name}")
        assert result.exit_code == 1
        assert "does not exist" in result.output
