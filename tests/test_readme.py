"""The figures in the README are those that the benchmarks wrote, and its code and commands run as they stand."""

import re
import shlex
from importlib.metadata import metadata
from pathlib import Path

import pytest
import torch
import typer

from exda_primitives import models
from exda_primitives.cli import app
from exda_primitives.patching import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["demo_weights", "cpu_forward", "restore_seam"])
def test_tables_are_those_of_the_results(name: str) -> None:
    rows = [
        line for line in (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().splitlines() if line[:1] == "|"
    ]
    assert rows
    assert [row for row in rows if row not in README] == []


def test_pictures_and_files_that_are_named_exist() -> None:
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    paths = re.findall(r"`((?:src|benchmarks|adapters|examples|docs)/[\w./-]*)`", README)
    assert links
    assert paths
    assert [path for path in links + paths if not (ROOT / path).exists()] == []


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few thousand parameters under the names that the README has, and a registry to throw away."""
    sizes = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
    whole = models.Restormer

    def made(*arguments: object, **options: object) -> torch.nn.Module:
        return whole(*arguments, **(options or sizes))

    monkeypatch.setattr(models, "Restormer", made)
    for name in ("families", "backbones", "architectures"):
        monkeypatch.setattr(registry, f"_{name}", dict(getattr(registry, f"known_{name}")()))


def test_every_python_block_runs_as_printed(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = models.PromptIR(num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    torch.save({"state_dict": {f"net.{name}": each for name, each in network.state_dict().items()}}, "model.ckpt")
    found = blocks("python")
    assert len(found) > 5
    # One after the other, as they are read: what the first has imported and made, the others use.
    space: dict[str, object] = {"__name__": "readme"}
    for block in found:
        exec(compile(block, "README.md", "exec"), space)
    assert {"mynet"} <= registry.known_backbones().keys()
    assert {"myattention"} <= registry.known_families().keys()
    assert {"net"} <= registry.known_architectures().keys()


def test_what_is_installed_is_there_to_be_installed() -> None:
    lines = re.findall(r"pip install ([^`&\n]*)", README)
    assert len(lines) > 4
    extras = metadata("exda_primitives").get_all("Provides-Extra")
    for line in lines:
        *options, what = shlex.split(line)
        assert set(options) <= {"-e"}
        # From the checkout: the distribution is on no index.
        found = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
        assert found, line
        assert set(filter(None, (found[1] or "").split(","))) <= set(extras)


def test_every_command_has_the_options_that_are_printed() -> None:
    text = "\n".join(blocks("bash")) + "\n" + "\n".join(re.findall(r"`(exda [^`]*)`", README))
    lines = [line for line in text.splitlines() if line.startswith("exda ")]
    assert len(lines) > 8
    for line in lines:
        command = typer.main.get_command(app)
        _, *words = shlex.split(line)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line
