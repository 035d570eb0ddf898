"""Results on disk."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.workbench.bench.stubs import COST, MACHINE, ORIGIN, timed

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.bench.record import SCHEMA, Record, append, finished, read, same_machine, write_csv

SKIPPED = Record(timed("triton").case, "skipped", ORIGIN, "triton: no CUDA device")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    for record in (timed(), SKIPPED, replace(timed("torch"), peak_bytes=None, cost=replace(COST, extra_macs=None))):
        append(path, record)
    return path


def test_what_is_read_is_what_was_written(file: Path) -> None:
    records = read(file)
    assert records == [timed(), SKIPPED, replace(timed("torch"), peak_bytes=None, cost=replace(COST, extra_macs=None))]
    assert finished(records) == {timed().case, SKIPPED.case, timed("torch").case}


def test_figures_derived_from_the_times(file: Path) -> None:
    row = json.loads(file.read_text().splitlines()[0])
    assert row["schema"] == SCHEMA
    assert row["seconds_p50"] == 0.2
    assert row["megapixels_per_second"] == pytest.approx(16 * 24 / 1e6 / 0.2)
    assert row["turns"] == 3
    assert SKIPPED.percentiles is None
    assert SKIPPED.megapixels_per_second is None


def test_another_version_is_refused(file: Path) -> None:
    row = json.loads(file.read_text().splitlines()[0]) | {"schema": SCHEMA + 1}
    file.write_text(file.read_text() + json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=rf"line 4: is of version {SCHEMA + 1}, this library reads {SCHEMA}"):
        read(file)


@pytest.mark.parametrize("line", ["", "{", "[]", "3", "{}", f'{{"schema": {SCHEMA}}}'])
def test_lines_of_something_else_are_refused(file: Path, line: str) -> None:
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(ConfigError, match="line 1: is no result of exda bench"):
        read(file)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "missing.jsonl")
    (tmp_path / "image.jsonl").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "image.jsonl")


def test_results_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    same_machine([timed()], dict(MACHINE), tmp_path)
    with pytest.raises(ConfigError, match="commit 'abc', here 'def'"):
        same_machine([timed()], MACHINE | {"commit": "def"}, tmp_path)
    with pytest.raises(ConfigError, match="gpu None, here 'a GPU'"):
        same_machine([timed()], MACHINE | {"gpu": "a GPU"}, tmp_path)


def test_csv_has_one_row_per_case(file: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", read(file))
    with (tmp_path / "results.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["variant"] for row in rows] == ["original", "triton", "torch"]
    assert rows[0]["seconds_p50"] == "0.2"
    assert rows[0]["device"] == "a processor"
    assert rows[1]["reason"] == "triton: no CUDA device"
    assert rows[1]["seconds_p50"] == ""
