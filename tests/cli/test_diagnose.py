"""exda diagnose: what it writes, what it keeps, and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from exda_primitives.cli import app
from exda_primitives.workbench.diagnostics import digits, function, position

TINY = ("--steps", 2, "--seeds", 1, "--variant", "linear", "--variant", "residual")


def run(*options: object) -> Result:
    return CliRunner().invoke(app, ["diagnose", *map(str, options)], env={"COLUMNS": "200"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(256, size=(10, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", images=images)
    return tmp_path / "digits.npz"


@pytest.mark.parametrize("quick", [digits, function, position])
def test_quick_runs_write_all_their_files(quick, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = quick.__name__.rpartition(".")[2]
    options = quick.quick_options() | {"steps": 2}
    monkeypatch.setattr(quick, "quick_options", lambda: options)
    out = tmp_path / "out"
    result = run(name, "--quick", "--out", out, *(["--data", data] if quick is digits else []))
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [f"diagnose_{name}.{end}" for end in ("json", "md", "png")]
    saved = json.loads((out / f"diagnose_{name}.json").read_text())
    assert {row["seed"] for row in saved["runs"]} == {0, 1, 2}
    assert {row["variant"] for row in saved["runs"]} >= {"linear", "widened", "residual", "replace", "gelu", "after"}
    assert saved["config"]["steps"] == 2
    assert "V + g(V) before aggregation" in result.output
    assert saved["machine"]["cpu"] in (out / f"diagnose_{name}.md").read_text()
    assert (out / f"diagnose_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_depths_can_be_added_later(data: Path, tmp_path: Path) -> None:
    more = ("--out", tmp_path, "--data", data, "--batch", 2, "--rate", 0.01)
    assert run("digits", *TINY, *more, "--depth", 2).exit_code == 0
    path = tmp_path / "diagnose_digits.json"
    first = json.loads(path.read_text())
    assert (first["config"]["batch"], first["config"]["rate"]) == (2, 0.01)
    assert run("digits", *TINY, *more, "--depth", 1, "--depth", 2).exit_code == 0
    saved = json.loads(path.read_text())
    assert saved["runs"][:2] == first["runs"]
    assert [(row["condition"], row["variant"]) for row in saved["runs"][2:]] == [
        ("depth 1", "linear"),
        ("depth 1", "residual"),
    ]


def test_digits_within_windows(tmp_path: Path) -> None:
    data, out = tmp_path / "digits.npz", tmp_path / "out"
    np.savez(data, images=np.random.default_rng(0).integers(256, size=(10, 14, 14), dtype=np.uint8))
    result = run("digits", "--windows", *TINY, "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    saved = json.loads((out / "diagnose_windows.json").read_text())
    assert [(row["condition"], row["variant"]) for row in saved["runs"]] == [
        ("depth 2", "linear"),
        ("depth 2", "residual"),
    ]
    assert "by window attention alone" in (out / "diagnose_windows.md").read_text()


def test_results_of_another_configuration_are_kept(tmp_path: Path) -> None:
    assert run("position", *TINY, "--out", tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run("position", *TINY, "--out", tmp_path, "--steps", 3)
    assert result.exit_code == 1
    assert "another config (steps 2, here 3)" in result.output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("function", "--variant", "cubic"), 2, "'cubic' is none of linear"),
        (("digits", "--data", "nowhere.npz"), 1, "nowhere.npz: cannot be read as digits"),
        (("function", "--seeds", 0), 2, "--seeds"),
        (("digits", "--rate", 0), 2, "a rate of 0 learns nothing"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: tuple[object, ...], code: int, message: str) -> None:
    result = run(*options, "--out", tmp_path)
    assert result.exit_code == code
    assert message in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".md", ".png"])
def test_a_file_that_is_no_result_is_kept(tmp_path: Path, suffix: str) -> None:
    mine = tmp_path / f"diagnose_position{suffix}"
    mine.write_text("mine")
    result = run("position", *TINY, "--out", tmp_path)
    assert result.exit_code == 1
    assert "exists without diagnose_position.json" in result.output
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_an_impossible_folder_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("position", *TINY, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot hold results" in result.output
    assert "seed 0" not in result.output


def test_missing_matplotlib_is_reported_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("position", "--out", tmp_path)
    assert result.exit_code == 1
    assert "cannot be imported" in result.output
    assert not list(tmp_path.iterdir())
