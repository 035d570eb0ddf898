from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.gpu.rows import FILE, Row, read
from tests.benchmarks.gpu.small import compute_nothing, shrink

from benchmarks.gpu import stage
from exda_primitives.ops import triton_or_torch

Ran = Callable[..., list[Row]]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Runs a stage small, in this process, and returns its rows."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shrink(monkeypatch, scratch)
    # Triton's interpreter on the CPU stands in for the GPU.
    monkeypatch.setattr(triton_or_torch, "computes_steps", lambda device: "triton")

    def run(process: str, status: int = 0) -> list[Row]:
        known = len(read(tmp_path / FILE))
        assert stage.main([*process.split(), "--out", str(tmp_path)]) == status
        return read(tmp_path / FILE)[known:]

    return run


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes kernels leave their outputs undefined, for tests that do not depend on results."""
    compute_nothing(monkeypatch)
