"""Users' files that commands run: --adapter FILE.py, and exda plan FILE.py:Class."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.registries import forget_afterwards
from tests.workbench.data.images import write_image
from typer.testing import CliRunner, Result

from exda_primitives.cli import app
from exda_primitives.workbench.data import read_image

NET = """
from torch import nn
from exda_primitives import Architecture, register_adapter
import beside

class Net(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.head = nn.Conv2d(dim, 3, 3, padding=1)

    def forward(self, x):
        return x + beside.SCALE * self.head(self.stem(x))

register_adapter(Architecture("net-of-a-test", Net, lambda state: {"dim": state.size("stem.weight")}))
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the registries and ``sys.path`` afterwards."""
    forget_afterwards(monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("SCALE = 0.0\n")
    file = tmp_path / "net.py"
    file.write_text(NET)
    return file


def test_a_users_network_is_restored_by_its_adapter(adapter: Path, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    convolutions = {"stem": (4, 3, 3, 3), "head": (3, 4, 3, 3)}
    state = {f"{name}.weight": torch.ones(shape) for name, shape in convolutions.items()}
    state |= {f"{name}.bias": torch.ones(shape[0]) for name, shape in convolutions.items()}
    save_file(state, weights)
    unknown = run("info", weights)
    assert unknown.exit_code == 1
    assert "is of no network that is known" in unknown.output
    source = write_image(tmp_path / "in.png", 20, 30)
    options = ("--checkpoint", weights, "--adapter", adapter, "--device", "cpu")
    result = run("restore", source, tmp_path / "out.png", *options)
    assert result.exit_code == 0, result.output
    # With SCALE = 0, imported from the file beside it, the forward pass returns its input.
    assert torch.equal(read_image(tmp_path / "out.png"), read_image(source))
    assert "net-of-a-test" in run("info", weights).output


def command(name: str, tmp_path: Path) -> list[object]:
    more: dict[str, list[object]] = {
        "restore": [write_image(tmp_path / "in.png"), tmp_path / "out.png", "--checkpoint", "demo"],
        "evaluate": ["demo", "--protocol", "promptir", "--clean", tmp_path, "--degrade", "rain", "--out", tmp_path],
        "inspect": ["demo", "--images", tmp_path, "--out", tmp_path / "out"],
        "info": ["demo"],
        "plan": ["demo"],
    }
    return [name, *more[name]]


@pytest.mark.parametrize("name", ["restore", "evaluate", "inspect", "info", "plan"])
def test_every_command_names_the_failing_line_of_an_adapter(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\ntorch.nothing\n")
    result = run(*command(name, tmp_path), "--adapter", file)
    assert result.exit_code == 1
    assert result.output == f"error: {file}, line 3: AttributeError: module 'torch' has no attribute 'nothing'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f():\n    return 1 / 0\n\nf()\n", ", line 2: ZeroDivisionError: division by zero"),
        ("x = 1\nif x\n", ", line 2: SyntaxError: expected ':' "),
        ("\nimport not_there_at_all\n", ", line 2: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("import sys\nsys.exit()\n", ", line 2: SystemExit: "),
        ("\0", ": "),
        (
            "import exda_primitives as exda\nexda.register_adapter(3)\n",
            ", line 2: register_adapter: expected an instance of Family, a Backbone or an Architecture, got 3.",
        ),
    ],
)
def test_an_error_in_the_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    result = run("info", "demo", "--adapter", file)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {file}{said}")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_path_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path if kind == "folder" else tmp_path / "none.py"
    result = run("info", "demo", "--adapter", file)
    assert result.exit_code == 1
    assert result.output == f"error: {file} {'is no regular file' if kind == 'folder' else 'does not exist'}\n"


def test_a_failing_constructor_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def net():\n    raise ValueError('no heads')\n")
    result = run("plan", f"{file}:net")
    assert (result.exit_code, result.output) == (1, f"error: {file}, line 2: ValueError: no heads\n")
