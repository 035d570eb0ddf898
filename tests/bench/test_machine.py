"""What a figure was measured on."""

import importlib.util
from pathlib import Path

import pytest
from tests.bench.stubs import CPU, MACHINE

from exda_primitives.bench import machine as module
from exda_primitives.bench.machine import git_commit, machine, machine_line

GPU = {"gpu": "a GPU", "gpu_gib": 80, "capability": "9.0", "driver": "570", "cuda": "13.0", "triton": "3.6"}


def test_of_the_cpu() -> None:
    found = machine(CPU)
    assert found == machine()
    assert found.keys() == MACHINE.keys()
    assert found["cpu"]
    assert str(found["commit"]) in machine_line(found)


def test_of_a_gpu() -> None:
    line = machine_line(MACHINE | GPU)
    assert line.startswith("a GPU (80 GiB, capability 9.0), driver 570, CUDA 13.0, Triton 3.6; a processor, 2 cores")
    assert machine_line(MACHINE) in line


def test_an_installed_package_has_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    assert git_commit().startswith("of version ")


def test_the_scripts_use_the_same() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("benchmarks_machine", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert (loaded.machine, loaded.machine_line) == (machine, machine_line)
