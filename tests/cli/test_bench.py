"""exda bench: a smoke run of all that it does, with a network that takes seconds."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tests.workbench.bench.stubs import Altered, timed
from typer.testing import CliRunner, Result

from exda_primitives import memory, ops
from exda_primitives.cli import app
from exda_primitives.ops import triton_or_torch
from exda_primitives.workbench.bench import bandwidth_floor
from exda_primitives.workbench.bench.budget import Budget
from exda_primitives.workbench.bench.plots import figure
from exda_primitives.workbench.bench.record import append, read

OPTIONS = ("--device", "cpu", "--backbone", "restormer-tiny", "--turns", 1, "--warm-up", 0)


def run(out: Path, *options: object) -> Result:
    command = ["bench", "run", "--out", str(out), *map(str, OPTIONS), *map(str, options)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


@pytest.fixture(scope="module", autouse=True)
def _without_triton() -> Iterator[None]:
    """Leaves out Triton, whose interpreter is slow, and measures the bandwidth by a copy that fits into a cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(triton_or_torch, "_MISSING", "not needed here")
        patched.setattr(bandwidth_floor, "_BYTES", {"cpu": 2**20})
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of both tasks, at 16 x 16."""
    out = tmp_path_factory.mktemp("bench")
    variants = ("--variant", "reference", "--variant", "torch", "--variant", "triton", "--variant", "fused-original")
    result = run(out, "--size", 16, *variants, "--task", "forward", "--task", "training")
    assert result.exit_code == 0, result.output
    assert "Training step, float32" in result.output
    return out


def test_every_case_has_its_row(results: Path) -> None:
    records = read(results / "results.jsonl")
    assert len(records) == 2 * 5
    statuses = {(record.case.variant, record.status) for record in records}
    assert statuses >= {("original", "timed"), ("reference", "timed"), ("torch", "timed"), ("fused-original", "timed")}
    # Without a GPU.
    assert {status for _, status in statuses} <= {"timed", "skipped"}
    with (results / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(records)
    text = (results / "results.md").read_text()
    assert "| restormer-tiny | 16x16 | eager |" in text
    assert records[0].origin.machine["cpu"] in text
    assert records[0].origin.copy_bandwidth > 0


def test_the_same_command_measures_nothing_again(results: Path) -> None:
    before = (results / "results.jsonl").read_text()
    assert run(results, "--size", 16, "--variant", "torch").exit_code == 0
    assert (results / "results.jsonl").read_text() == before


def test_results_of_another_machine_are_kept_apart(tmp_path: Path) -> None:
    append(tmp_path / "results.jsonl", timed())
    result = run(tmp_path, "--size", 32)
    assert result.exit_code == 1
    assert "give another folder" in result.output
    assert read(tmp_path / "results.jsonl") == [timed()]


def test_finished_cases_survive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(out: object, terms: object) -> None:
        raise KeyboardInterrupt

    finished = run(tmp_path, "--size", 16, "--variant", "original")
    assert finished.exit_code == 0
    monkeypatch.setitem(ops.mdta.functions, "torch", Altered(interrupt))
    assert run(tmp_path, "--size", 16, "--variant", "torch", "--variant", "triton").exit_code != 0
    text = (tmp_path / "results.md").read_text()
    assert "| restormer-tiny | 16x16 | eager |" in text
    assert "triton:" in text
    monkeypatch.undo()
    assert run(tmp_path, "--size", 16, "--variant", "torch").exit_code == 0
    variants = [record.case.variant for record in read(tmp_path / "results.jsonl")]
    assert sorted(variants) == ["original", "torch", "triton"]


def test_a_time_limit_measures_the_most_telling_cases_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--size", 16, "--size", "20x15", "--minutes", 10)
    monkeypatch.setattr(Budget, "estimate", lambda self, work: 1e9 if self._spent else None)
    result = run(tmp_path, *options)
    assert result.exit_code == 0, result.output
    assert "20x15: measured as 24x16, which exda restore pads it to" in result.output
    assert "left for want of time: 9; the same command goes on there" in result.output
    assert "longer than the time that was left for it" in result.output
    before = (tmp_path / "results.jsonl").read_text()
    assert "left" not in before
    assert {(each.case.comparison.size, each.case.comparison.task) for each in read(tmp_path / "results.jsonl")} == {
        ("16x16", "forward")
    }
    monkeypatch.undo()
    result = run(tmp_path, *options, "--task", "forward")
    assert "for want of time" not in result.output
    assert (tmp_path / "results.jsonl").read_text().startswith(before)
    records = read(tmp_path / "results.jsonl")
    assert {each.case.variant for each in records} == {"original", "fused", "fused-original"}
    assert [(each.case.comparison.task, each.case.comparison.size) for each in records[::3]] == [
        ("forward", "16x16"),
        ("forward", "24x16"),
    ]


def test_results_say_whether_freed_memory_is_kept(results: Path) -> None:
    (kept,) = {record.origin.machine["memory_kept"] for record in read(results / "results.jsonl")}
    assert kept is memory.keep()
    assert ("freed memory kept" if kept else "freed memory given back") in (results / "results.md").read_text()


def test_a_wrong_result_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ops.mdta.functions, "torch", Altered(lambda out, terms: 1.01 * out))
    result = run(tmp_path, "--size", 16, "--variant", "torch")
    assert result.exit_code == 1
    assert "wrong" in result.output
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    assert (row["variant"], row["status"], row["seconds"]) == ("torch", "wrong", [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "big"), "is no size"),
        (("--precision", "int8"), "'int8' is none of float32, tf32, bf16, fp16"),
        (("--mode", "fast"), "'fast' is none of eager, compiled, captured, onnxruntime, openvino"),
        (("--variant", "mine"), "'mine' is none of original, reference, torch, triton, auto, fused, fused-original"),
        (("--backbone", "unet"), "'unet' is none of restormer"),
        (("--device", "tpu"), "'tpu' is none of auto, cpu, cuda"),
    ],
)
def test_unknown_option_values_are_refused(tmp_path: Path, options: tuple[str, str], message: str) -> None:
    result = run(tmp_path, *options)
    assert result.exit_code != 0
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_plots(results: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "plot", str(results), "--out", str(tmp_path / "plots")])
    assert result.exit_code == 0, result.output
    names = {f"restormer-tiny-{task}-float32-1.png" for task in ("forward", "training")}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "plots").iterdir())


def test_plots_without_results_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "plot", str(tmp_path)])
    assert result.exit_code == 1
    assert "cannot be read as results of exda bench" in result.output


def test_guides_are_straight_and_the_axes_logarithmic() -> None:
    sizes = ((16, 0.1), (32, 0.2))
    records = [timed(height=side, width=side, seconds=(seconds,)) for side, seconds in sizes]
    records += [timed("torch", height=side, width=side, seconds=(2 * s,), ratio=2.0) for side, s in sizes]
    made = figure(records)
    assert isinstance(made, Figure)
    time, memory, ratios = made.axes
    assert (time.get_xscale(), time.get_yscale()) == ("log", "log")
    assert (memory.get_xscale(), memory.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line.get_xydata().tolist() for line in time.lines}
    assert lines["original, eager"] == [[256, 100], [1024, 200]]
    assert lines["linear"] == [[256, 50], [1024, 200]]
    assert lines["bandwidth floor"] == [[256, 1], [1024, 1]]
    # One line for the ratio, of the patched variant alone, and one at 1.
    assert [line.get_ydata()[0] for line in ratios.lines] == [2.0, 1]
