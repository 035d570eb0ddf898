"""The description of the machine that a figure was measured on."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
from tests.workbench.bench.stubs import CPU, MACHINE

from exda_primitives.workbench.shared import machine as module
from exda_primitives.workbench.shared.machine import git_commit, machine, machine_line

GPU = {"gpu": "a GPU", "gpu_gib": 80, "capability": "9.0", "driver": "570", "cuda": "13.0", "triton": "3.6"}


def test_a_machine_without_a_gpu() -> None:
    found = machine(CPU)
    assert found == machine()
    assert found.keys() == MACHINE.keys()
    assert found["cpu"]
    assert str(found["commit"]) in machine_line(found)


def test_a_machine_with_a_gpu() -> None:
    line = machine_line(MACHINE | GPU)
    assert line.startswith("a GPU (80 GiB, capability 9.0), driver 570, CUDA 13.0, Triton 3.6; a processor, 2 cores")
    assert machine_line(MACHINE) in line


def test_an_installed_package_gives_its_version_instead_of_a_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    assert git_commit().startswith("of version ")


@pytest.mark.parametrize(
    ("changed", "marked"), [("src/code.py", True), ("benchmarks/results/quality.json", False), ("README.md", False)]
)
def test_only_changes_of_code_are_marked(
    changed: str, marked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=tmp_path, check=True)

    monkeypatch.setattr(module, "PROJECT", tmp_path)
    for name in ("pyproject.toml", "src/code.py", "adapters/a.py", "benchmarks/results/quality.json", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git_commit()
    assert not commit.endswith("+changes")
    (tmp_path / changed).write_text("after")
    assert git_commit() == (commit + "+changes" if marked else commit)


def test_benchmark_scripts_use_the_same_functions() -> None:
    path = Path(__file__).parents[3] / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("benchmarks_machine", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert (loaded.machine, loaded.machine_line) == (machine, machine_line)
