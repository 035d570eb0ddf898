"""The kernels compiled ahead are those that the stages launch, and they compile.

Both are checked in a Python process without Triton's interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu.blocks import Block
from benchmarks.gpu.checkout import ROOT
from benchmarks.gpu.launches import Recording, record
from benchmarks.gpu.rows import FILE, read
from benchmarks.gpu.specs import FILE as SPECS

COMPARE = """
from benchmarks.gpu import specs
held, found = specs.read(), specs.recorded()
assert held.keys() == found.keys(), (held.keys(), found.keys())
for call in found:
    for ours, theirs in zip(held[call], found[call]):
        assert ours == theirs, f"call {call}: {ours}, now {theirs}"
assert held == found
"""


def run_without_interpreter(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_committed_launches_match_the_code() -> None:
    done = run_without_interpreter("-c", COMPARE)
    assert done.returncode == 0, f"run: python -m benchmarks.gpu specs\n{done.stderr}"
    assert SPECS.stat().st_size < 100_000


def test_a_kernel_is_compiled_and_a_row_says_so(tmp_path: Path) -> None:
    # The first of a million shares: a single kernel.
    process = ("stage", "compile", "--call", "A", "--share", "0/1000000", "--out", str(tmp_path))
    done = run_without_interpreter("-m", "benchmarks.gpu", *process, TRITON_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    *_, row = read(tmp_path / FILE)
    assert (row["kind"], row["kernels"], row["failed"], row["left"]) == ("compiled", 1, 0, 0)
    assert len(list(tmp_path.rglob("*.cubin"))) == 1


def test_the_interpreter_records_nothing() -> None:
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        next(record(Recording(Block("a", 4, 1, 8, 8), "bf16")))
