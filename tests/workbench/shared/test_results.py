"""Result files: they are read as written, and neither mixed with others nor overwritten."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exda_primitives import ConfigError, ExDAError
from exda_primitives.workbench.shared import results
from exda_primitives.workbench.shared.files import check_writable
from exda_primitives.workbench.shared.results import Interval, Result, Spread, begin, difference, read, spread, write

CONFIG = {"steps": 10, "size": (8, 8), "rate": 1e-3}
numbers = st.floats(-1e6, 1e6)


def a_result(path: Path, **changes: Any) -> Result:
    return begin(path, **{"kind": "digits", "config": CONFIG, "seeds": [0, 1], "command": "exda ...", **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A result file with one run of seed 0."""
    path = tmp_path / "new" / "folder" / "result.json"
    result = a_result(path)
    result["runs"].append({"seed": 0, "psnr": 20.5})
    write(path, result)
    return path


def only_file_in(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_what_was_written_is_read(file: Path) -> None:
    result = read(file, "digits")
    assert list(result) == ["kind", "schema", "command", "machine", "config", "seeds", "runs"]
    assert result["runs"] == [{"seed": 0, "psnr": 20.5}]
    assert result["config"] == {"steps": 10, "size": [8, 8], "rate": 1e-3}
    assert result["machine"]["torch"]
    assert only_file_in(file.parent) == file


def test_runs_of_the_same_configuration_are_kept(file: Path) -> None:
    result = a_result(file, seeds=[1, 2], command="exda again")
    assert result["runs"] == [{"seed": 0, "psnr": 20.5}]
    assert result["seeds"] == [0, 1, 2]
    assert result["command"] == "exda ...; exda again"
    result["runs"].append({"seed": 1, "psnr": 21.0})
    write(file, result)
    assert [run["seed"] for run in read(file, "digits")["runs"]] == [0, 1]
    assert a_result(file)["command"] == "exda ...; exda again"


def test_every_commit_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(file, "digits")["machine"]["commit"]
    about = results.machine()
    monkeypatch.setattr(results, "machine", lambda device: about | {"commit": "later"})
    write(file, a_result(file))
    assert a_result(file)["machine"]["commit"] == f"{first}, later"


def test_another_machine_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = results.machine()
    monkeypatch.setattr(results, "machine", lambda device: about | {"torch": "1.0"})
    with pytest.raises(ConfigError, match=r"another machine \(torch .* here '1.0'"):
        a_result(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {**CONFIG, "steps": 11}}, r"another config \(steps 10, here 11\)"),
        ({"config": {**CONFIG, "data": "mnist"}}, r"another config \(data None, here 'mnist'\)"),
        ({"kind": "function"}, "kind 'digits', expected 'function'"),
    ],
)
def test_results_of_another_kind_are_neither_resumed_nor_overwritten(
    file: Path, changes: dict[str, Any], message: str
) -> None:
    before = file.read_text()
    with pytest.raises(ConfigError, match=message):
        a_result(file, **changes)
    other = a_result(file.with_name("other.json"), **changes)
    with pytest.raises(ConfigError, match=message):
        write(file, other)
    assert file.read_text() == before
    write(file, other, replace=True)
    assert read(file, other["kind"]) == other


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1, 2]", "is no result"),
        (b"{}", "is no result"),
        (b'{"kind": "digits", "schema": 0}', "version 0, this library reads 1"),
        (b'{"kind": "digits", "schema": 1}', "lacks 'command'"),
        (
            b'{"kind": "digits", "schema": 1, "command": "", "machine": {}, "config": [], "seeds": [], "runs": []}',
            "'config' is a list; it is damaged",
        ),
    ],
)
def test_a_file_that_is_no_result_is_kept(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "result.json"
    fresh = a_result(path)
    path.write_bytes(content)
    for refused in (lambda: read(path, "digits"), lambda: a_result(path), lambda: write(path, fresh)):
        with pytest.raises(ConfigError, match=message):
            refused()
    assert path.read_bytes() == content


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_an_impossible_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot hold results: .*file is a file; give another folder"):
        a_result(tmp_path / place / "result.json")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, since permissions do not stop a superuser who runs the tests.
    monkeypatch.setattr("exda_primitives.workbench.shared.files.os.access", lambda folder, mode: folder != tmp_path)
    with pytest.raises(ConfigError, match="may not be written into; give another folder"):
        check_writable(tmp_path / "new" / "folder")
    (tmp_path / "mine").mkdir()
    check_writable(tmp_path / "mine" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nowhere.json: cannot be read"):
        read(Path("nowhere.json"), "digits")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"psnr": math.nan}, r"result.runs\[1\].psnr is nan"),
        ({"losses": [1.0, math.inf]}, r"result.runs\[1\].losses\[1\] is inf"),
        ({"psnr": np.float32(1)}, r"result.runs\[1\].psnr is a float32, not plain data"),
        ({1: 2}, "key 1 is a int"),
    ],
)
def test_data_that_are_not_plain_and_finite_are_not_written(file: Path, run: dict[Any, Any], message: str) -> None:
    before = file.read_text()
    result = a_result(file)
    result["runs"].append(run)
    with pytest.raises(ExDAError, match=message):
        write(file, result)
    assert file.read_text() == before
    assert only_file_in(file.parent) == file


def test_a_result_without_its_header_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ExDAError, match="needs 'kind'"):
        write(tmp_path / "result.json", {"runs": []})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_text()

    def interrupt(*names: object) -> None:
        raise KeyboardInterrupt

    result = a_result(file)
    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(file, result)
    assert file.read_text() == before
    assert only_file_in(file.parent) == file
    assert json.loads(before)["runs"]


def test_spread_is_mean_deviation_and_number() -> None:
    assert spread([2.0, 4.0]) == Spread(3.0, math.sqrt(2), 2)
    assert spread([5]) == Spread(5.0, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_a_spread_of_no_values_or_of_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(ExDAError, match="values"):
        spread(values)
    with pytest.raises(ExDAError, match="values"):
        difference(values, values)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_the_interval_of_a_difference_is_within_the_differences(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    found = difference(ours, theirs, draws=50)
    gains = [a - b for a, b in pairs]
    # Means of equal numbers are equal up to rounding.
    slack = 1e-9 * (1 + max(map(abs, gains)))
    assert min(gains) - slack <= found.low <= found.high <= max(gains) + slack
    assert found.mean == pytest.approx(np.mean(gains), abs=slack)
    assert difference(ours, theirs, draws=50) == found


def test_the_interval_has_its_confidence() -> None:
    """Of 200 samples with mean 0, about 95% of the intervals hold 0."""
    samples = np.random.default_rng(0).normal(size=(200, 40))
    intervals = [difference(sample, np.zeros(40), draws=400) for sample in samples]
    assert 0.9 <= np.mean([found.low <= 0 <= found.high for found in intervals]) <= 0.99
    assert difference([1.0, 1.0], [0.0, 0.0]) == Interval(1.0, 1.0, 1.0)


def test_a_difference_needs_pairs() -> None:
    with pytest.raises(ExDAError, match="got 2 and 1"):
        difference([1.0, 2.0], [1.0])
