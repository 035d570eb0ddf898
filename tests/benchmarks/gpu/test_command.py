"""``python -m benchmarks.gpu``, where nothing of the project is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from benchmarks.gpu.checkout import ROOT
from benchmarks.gpu.plan import CALLS, Stage
from benchmarks.gpu.rows import FILE, read
from benchmarks.gpu.session import Session

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import cache, checkout, pack

# Only those of the project's requirements that `NEEDED` names can be imported, and the project only from the checkout.
BARE = """
import sys
for name in ("PIL", "lightning", "matplotlib", "pytest", "rich", "sklearn", "timm", "torchmetrics", "typer"):
    sys.modules[name] = None
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in str(each).lower()]
from benchmarks.gpu.stage import STAGES, module
import exda_primitives.adapters
for name in STAGES:
    module(name)
import benchmarks.gpu.__main__, benchmarks.gpu.report, benchmarks.gpu.specs
print(exda_primitives.__file__, exda_primitives.adapters.__file__)
"""


def test_imports_need_torch_and_little_else(tmp_path: Path) -> None:
    # Some distributions install a package that is also called `benchmarks`.
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise RuntimeError('not this one')")
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adapters") == 1


def test_a_call_runs_its_stages_and_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (Stage("about", 1, 60, ("about",)), Stage("no", 1, 60, ("about",), "a-program-of-nobody"))
    monkeypatch.setattr(command, "CALLS", {"A": stages})
    monkeypatch.setattr(command, "MODULE", (sys.executable, "-m", "tests.benchmarks.gpu.small", str(tmp_path)))
    monkeypatch.setattr(command, "SECONDS", {"A": 120.0})
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    out = tmp_path / "out"
    assert command.main(["A", "--out", str(out)]) == 1
    assert [row["kind"] for row in read(out / FILE)] == ["machine", "ceilings", "stage", "stage"]
    text = (out / "report.md").read_text()
    assert "| about | done |" in text
    assert "| no | failed |" in text
    assert "'a-program-of-nobody'" in text
    (out / "report.md").unlink()
    assert command.main(["report", str(out)]) == 0
    assert (out / "report.md").read_text() == text


def test_calls_fit_into_their_time_limits() -> None:
    assert CALLS.keys() == command.SECONDS.keys()
    # A command may take ten minutes, both together fifteen.
    assert command.SECONDS["A"] <= 570
    assert command.SECONDS["A"] + command.SECONDS["B"] <= 840


def test_packing_writes_requirements_commit_and_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    stages: list[Stage] = []
    kernels, packed = tmp_path / "kernels", tmp_path / "packed"
    for module in (checkout, pack):
        monkeypatch.setattr(module, "PACKED", packed)
    monkeypatch.setattr(checkout, "_COMMIT", packed / "commit")
    for module in (cache, pack):
        monkeypatch.setattr(module, "ARCHIVE", packed / "kernels.tar.gz")
    monkeypatch.setattr(cache, "KERNELS", kernels)
    monkeypatch.setattr(pack, "git_commit", lambda: "abc")
    monkeypatch.setattr(pack.subprocess, "run", lambda command, check: ran.append(command))

    def compiled(session: Session) -> bool:
        stages.extend(session.stages)
        (kernels / "key").mkdir(parents=True)
        for name in ("a.cubin", "a.json", "a.ptx"):
            (kernels / "key" / name).write_text(name)
        return True

    monkeypatch.setattr(Session, "run", compiled)
    assert command.main(["pack"]) == 0
    assert stages == []
    assert ran[0][-2:] == list(checkout.NEEDED)
    assert checkout.packed_commit() == "abc"
    assert command.main(["pack", "--kernels"]) == 0
    assert [process.split()[:3] for process in stages[0].processes[:1]] == [["compile", "--call", "A"]]
    with tarfile.open(packed / "kernels.tar.gz") as archive:
        assert archive.getnames() == ["key/a.cubin", "key/a.json"]
    # An existing cache is left alone.
    (kernels / "key" / "a.cubin").unlink()
    cache.unpack_kernels()
    assert not (kernels / "key" / "a.cubin").exists()
    monkeypatch.setattr(cache, "KERNELS", tmp_path / "elsewhere")
    cache.unpack_kernels()
    assert (tmp_path / "elsewhere" / "key" / "a.json").read_text() == "a.json"
    # The packed commit holds only for the code that was packed.
    monkeypatch.setattr(checkout, "fingerprint", lambda: "other")
    assert checkout.packed_commit() is None
