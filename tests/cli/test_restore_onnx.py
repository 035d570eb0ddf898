"""exda restore --onnx."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.workbench.restoration.images import pixels, save, stored
from typer.testing import CliRunner, Result

from exda_primitives.cli import app
from exda_primitives.workbench.demo.model import tiny_restormer, weights
from exda_primitives.workbench.export import export
from exda_primitives.workbench.export.program import silence_exporters

HOST = str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors")


def run(*arguments: object) -> Result:
    command = ["restore", "--device", "cpu", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_restormer()
    model.load_state_dict(weights("host"))
    return export(model, tmp_path_factory.mktemp("onnx") / "host.onnx").path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(pixels(60, 90), tmp_path / "in.png")


@pytest.mark.parametrize("options", [(), ("--tile", 48, "--overlap", 16)], ids=["whole", "tiles"])
def test_the_same_image_as_from_the_checkpoint(
    options: tuple[object, ...], file: Path, image: Path, tmp_path: Path
) -> None:
    result = run(image, tmp_path / "onnx.png", "--onnx", file, *options)
    assert result.exit_code == 0, result.output
    assert ("each tile is all that the model sees" in result.output) is bool(options)
    assert run(image, tmp_path / "torch.png", "--checkpoint", HOST, *options).exit_code == 0
    differences = np.abs(stored(tmp_path / "onnx.png").astype(int) - stored(tmp_path / "torch.png"))
    # The last of the 8 bits may be rounded the other way.
    assert differences.max() <= 1
    assert (differences > 0).mean() < 1e-3


WITHOUT_PYTORCH = """
import sys
# None in place of a module makes its import fail, as if it were not installed.
sys.modules.update(dict.fromkeys(["torch", "einops", "safetensors", "timm"]))
from exda_primitives.cli import app
app(sys.argv[1:])
"""


def test_pytorch_is_not_needed(file: Path, image: Path, tmp_path: Path) -> None:
    arguments = ("--onnx", file, "--tile", 48, "--overlap", 16)
    command = [sys.executable, "-c", WITHOUT_PYTORCH, "restore", image, tmp_path / "out.png", *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run(image, tmp_path / "with.png", *arguments).exit_code == 0
    assert np.array_equal(stored(tmp_path / "out.png"), stored(tmp_path / "with.png"))
    command = [sys.executable, "-c", WITHOUT_PYTORCH, "restore", image, tmp_path / "2.png", "--checkpoint", HOST]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the Python module torch is not installed, and this needs it\n"


def test_tiles_of_512_by_default(file: Path, tmp_path: Path) -> None:
    result = run(save(pixels(24, 530), tmp_path / "in.png"), tmp_path / "out.png", "--onnx", file)
    assert result.exit_code == 0, result.output
    assert " 512 " in result.output


def test_unusable_onnx_files_are_refused(image: Path, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    names = ("two", "half", "fixed", "six", "last", "pair", "broken")
    two, half, fixed, six, last, pair, broken = (tmp_path / f"{name}.onnx" for name in names)
    x = torch.rand(1, 3, 16, 24)
    open_sides = {"input_names": ["x"], "dynamic_axes": {"x": {2: "height", 3: "width"}}}
    open_rows = {"input_names": ["x"], "dynamic_axes": {"x": {1: "height", 2: "width"}}}
    with silence_exporters():
        torch.onnx.export(Two(), (x, x), str(two), dynamo=False)
        torch.onnx.export(torch.nn.Conv2d(3, 3, 1).half(), (x.half(),), str(half), dynamo=False)
        torch.onnx.export(torch.nn.Conv2d(3, 3, 1), (x,), str(fixed), dynamo=False)
        torch.onnx.export(torch.nn.Conv2d(6, 3, 1), (torch.rand(1, 6, 16, 24),), str(six), dynamo=False, **open_sides)
        torch.onnx.export(torch.nn.ReLU(), (x.movedim(1, -1),), str(last), dynamo=False, **open_rows)
        torch.onnx.export(torch.nn.ReLU(), (torch.cat([x, x]),), str(pair), dynamo=False, **open_sides)
    broken.write_bytes(b"no graph")
    for path, message in (
        (two, "has 2 inputs and 1 outputs"),
        (half, "takes tensor(float16) of shape [1, 3, 16, 24]; expected tensor(float)"),
        (fixed, "fixed.onnx: takes only images of 16 x 24 pixels; expected any height and width"),
        (six, "six.onnx: takes images of 6 channels; expected 3 (colour) or 1 (grey)"),
        (last, "last.onnx: takes (1, height, width, 3), the channels last; expected (batch, channels, height, width)"),
        (pair, "pair.onnx: takes 2 images at a time; expected any number, or 1"),
        (broken, "onnxruntime cannot run it"),
        (tmp_path / "none.onnx", "onnxruntime cannot run it"),
    ):
        result = run(image, tmp_path / "out.png", "--onnx", path)
        assert result.exit_code == 1
        assert message in result.output
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("device", "providers"),
    [("auto", ["TensorrtExecutionProvider", "CPUExecutionProvider"]), ("cpu", ["CPUExecutionProvider"])],
)
def test_auto_takes_the_providers_that_are_there(
    device: str, providers: list[str], file: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    session = onnxruntime.InferenceSession

    def opened(path: str, options: object, providers: list[str]) -> onnxruntime.InferenceSession:
        asked.append(providers)
        return session(path, options, providers=["CPUExecutionProvider"])

    there = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    # Whether PyTorch has a GPU does not matter.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    result = run(image, tmp_path / "out.png", "--onnx", file, "--device", device)
    assert result.exit_code == 0, result.output
    assert asked == [providers]


def test_cuda_without_its_provider_is_refused(file: Path, image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png", "--onnx", file, "--device", "cuda")
    assert result.exit_code == 1
    assert "onnxruntime has no CUDAExecutionProvider here" in result.output
    result = run(image, tmp_path / "out.png", "--onnx", file, "--device", "tpu")
    assert result.exit_code == 2
    assert "'tpu' is none of auto, cpu, cuda" in result.output


def test_a_multiple_that_is_no_number_is_ignored(file: Path, image: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {"multiple": "two", "sorts": "yes"})
    onnx.save(model, tmp_path / "odd.onnx")
    result = run(image, tmp_path / "out.png", "--onnx", tmp_path / "odd.onnx", "--tile", 48, "--overlap", 16)
    assert result.exit_code == 0, result.output
    assert "This network sorts pixels by their values" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of both"),
        (("--onnx", "a.onnx", "--checkpoint", "demo"), "give one of both"),
        (("--onnx", "a.onnx", "--half", "--memory", "4"), "--memory, --half: only for checkpoints"),
    ],
)
def test_conflicting_options_are_refused(options: tuple[str, ...], message: str, image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out.png").exists()
