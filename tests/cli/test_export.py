"""exda export."""

from dataclasses import replace
from importlib import resources
from io import BytesIO
from pathlib import Path

import pytest
import torch
from tests.lifecycle.networks import image
from tests.registries import forget_afterwards
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.errors import ExDAError
from exda_primitives.workbench.demo.model import tiny_restormer, weights
from exda_primitives.workbench.export import Exported
from exda_primitives.workbench.export.check import Difference
from exda_primitives.workbench.export.onnx_file import OnnxNetwork

NET = """
import torch
import exda_primitives as exda

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)

exda.register_adapter(exda.Architecture("net-to-export", Net, lambda state: {}))
"""

HOST = Path(str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_checkpoint_with_trained_weights(tmp_path: Path) -> None:
    model = tiny_restormer().eval()
    model.load_state_dict(weights("host"))
    exda.patch(model)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(0.2)
    exda.save(model, tmp_path / "exda.safetensors")
    out = tmp_path / "model.onnx"
    result = run(HOST, out, "--patch", tmp_path / "exda.safetensors")
    assert result.exit_code == 0, result.output
    assert "model.onnx: restormer, patched, float32" in result.output
    assert "sides: multiples of 8, at least 16" in result.output
    assert "Compared with PyTorch on 1 x 24 x 40, 2 x 56 x 24, 3 x 40 x 72" in result.output
    x = image(0, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(OnnxNetwork(out)(x), model(x), rtol=0, atol=5e-6)


def test_a_file_that_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_bytes(b"mine")
    result = run("demo-host", out)
    assert result.exit_code == 1
    assert "exists; --overwrite replaces it" in result.output
    assert out.read_bytes() == b"mine"
    result = run("demo-host", out, "--overwrite", "--half")
    assert result.exit_code == 0, result.output
    assert "restormer, float16" in result.output
    assert OnnxNetwork(out).metadata["precision"] == "float16"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["demo", "out.engine"], 2, "'engine' is none of onnx, pt2"),
        (["demo", "out.onnx", "--format", "engine"], 2, "'engine' is none of onnx, pt2"),
        (["demo", "out.onnx", "--opset", "9"], 2, "--opset"),
        (["none.pth", "out.onnx"], 1, "none.pth: does not exist"),
        (["demo", "none/out.onnx"], 1, "none: does not exist; make the folder first"),
        (["demo", "."], 2, "is none of onnx, pt2"),
        (["demo", ".", "--format", "onnx"], 1, "is no regular file"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_wrong_command_does_nothing(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_users_network_is_exported_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_afterwards(monkeypatch)
    # A network small enough to be captured quickly.
    (tmp_path / "net.py").write_text(NET)
    weights = {"conv.weight": torch.rand(3, 3, 3, 3), "conv.bias": torch.rand(3)}
    torch.save(weights, tmp_path / "net.pth")
    for name, options in (("net.pt2", []), ("net.bin", ["--format", "pt2"])):
        result = run(tmp_path / "net.pth", tmp_path / name, "--adapter", tmp_path / "net.py", *options)
        assert result.exit_code == 0, result.output
        assert f"{name}: Net, float32" in result.output
        x = image(0, 32, 48)
        found = torch.export.load(BytesIO((tmp_path / name).read_bytes())).module()(x)
        expected = torch.nn.functional.conv2d(x, weights["conv.weight"], weights["conv.bias"], padding=1)
        torch.testing.assert_close(found, expected)


def test_a_failed_export_is_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ExDAError("net.onnx: not written: [why]")

    monkeypatch.setattr("exda_primitives.workbench.export.export", refused)
    result = run("demo-host", tmp_path / "net.onnx")
    assert (result.exit_code, result.output.strip()) == (1, "error: net.onnx: not written: [why]")
    assert list(tmp_path.iterdir()) == []


def test_an_inexact_export_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    difference = Difference(((1, 8, 8),), 0.07, 0.19, 0.28, own=0.07)
    done = Exported(
        HOST, {"network": "histoformer", "patched": "{}", "precision": "float32", "multiple": "8"}, difference
    )
    done.metadata["least_side"] = "16"
    monkeypatch.setattr("exda_primitives.workbench.export.export", lambda *_, **__: replace(done, inexact="it sorts"))
    result = run("demo-host", tmp_path / "net.onnx")
    assert "Another program cannot compute exactly what this network does: it sorts." in result.output
    assert "PyTorch's own rounding changes its output by 7.0e-02, relative." in result.output
