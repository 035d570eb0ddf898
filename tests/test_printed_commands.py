"""Every ``exda`` and benchmark command that README and docs print runs as printed, only on less."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image
from tests.lifecycle.networks import SMALL
from torch import nn
from typer import Typer
from typer.testing import CliRunner

import exda_primitives as exda
from exda_primitives import models
from exda_primitives.cli import app
from exda_primitives.ops import triton_or_torch
from exda_primitives.workbench.bench import bandwidth_floor
from exda_primitives.workbench.diagnostics import digits

ROOT = Path(__file__).parents[1]
SHORT = {
    "demo": ("--image", "photos/0.png"),
    "adapt": ("--set", "recipe.steps=2", "--set", "data.patch=16"),
    "train": ("--set", "recipe.steps=2", "--set", "recipe.batch=1", "--set", "data.patch=16"),
    "mine": ("--minutes", "0.05", "--size", "32"),
    "benchmarks.quality": ("--minutes", "0.05"),
}
"""Options added to a command so that it takes seconds: a small image, steps, patch sides in pixels and minutes."""
IMAGES = 5
"""Images per folder."""


def printed_commands(path: Path) -> list[list[str]]:
    """Returns the words of a page's commands, without what installs them."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.rpartition("&& ")[2] for block in blocks for line in block.splitlines()]
    found = [shlex.split(line) for line in lines]
    return [words for words in found if Path(words[0]).name == "exda" or words[:2] == ["python", "-m"]]


PAGES = {
    path.name: commands
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if (commands := printed_commands(path))
}


def times_of_change(folder: Path) -> dict[Path, int]:
    """Returns when each file below a folder was written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def less(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves out what takes long and is tested elsewhere: compiling, large copies, all steps but two."""
    monkeypatch.setattr(triton_or_torch, "_MISSING", "not needed here")
    monkeypatch.setattr(bandwidth_floor, "_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    options = digits.quick_options() | {"steps": 2}
    monkeypatch.setattr(digits, "quick_options", lambda: options)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with everything that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXDA_HOME", str(tmp_path / "home"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in ("photos", "photographs", "low", "clean", "home"):
        (tmp_path / name).mkdir()
    for name in ("photos", "photographs", "low", "clean"):
        for index in range(IMAGES):
            image = Image.effect_noise((112, 96), 40 + 10 * index).convert("RGB")
            image.save(tmp_path / name / f"{index}.png")
    with ZipFile(tmp_path / "crops.zip", "w") as crops:
        for path in (tmp_path / "clean").iterdir():
            crops.write(path, path.name)
    torch.manual_seed(0)
    network = exda.models.Restormer(**SMALL)
    for name in ("deraining.pth", "model.pth", "home/restormer-deraining.pth"):
        torch.save({"params": network.state_dict()}, tmp_path / name)
    exda.patch(network)
    exda.save(network, tmp_path / "exda.safetensors")
    adair = exda.models.AdaIR(**SMALL)
    prefixed = {f"net.{key}": each for key, each in adair.state_dict().items()}
    torch.save({"state_dict": prefixed}, tmp_path / "adair.ckpt")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_printed_commands_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in PAGES[page]:
        by_python = words[0] == "python"
        program: Typer = import_module(f"{words[2]}.__main__").app if by_python else app
        arguments = words[3 if by_python else 1 :]
        if re.search(r"\.pt2|--opset", " ".join(arguments)):
            # PyTorch takes half a minute to capture the demo's network or AdaIR, for each of these files.
            monkeypatch.setattr(models, "create", lambda *given, **more: nn.Conv2d(3, 3, 3, padding=1))
        before = times_of_change(folder)
        name = words[2 if words[1] in ("-m", "bench") else 1]
        result = CliRunner().invoke(program, [*arguments, *SHORT.get(name, ())], env={"COLUMNS": "200"})
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
        assert times_of_change(folder) != before, f"{shlex.join(words)} wrote nothing: {result.output}"
