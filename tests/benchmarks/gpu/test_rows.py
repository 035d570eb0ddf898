"""Rows of results: one line of JSON each."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.gpu.rows import FILE, Rows, brief, read


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = Rows(tmp_path, "a stage")
    rows.write("first", number=1.5, text="a\nb", none=None, path=tmp_path)
    rows.write("second", error=math.nan)
    first, second = read(tmp_path / FILE)
    assert first["at"] >= 0
    assert {name: first[name] for name in ("stage", "kind", "number", "text", "none", "path")} == {
        "stage": "a stage",
        "kind": "first",
        "number": 1.5,
        "text": "a\nb",
        "none": None,
        "path": str(tmp_path),
    }
    assert math.isnan(second["error"])
    assert read(tmp_path / "none") == []


def test_an_unfinished_line_spoils_no_other(tmp_path: Path) -> None:
    rows = Rows(tmp_path, "a stage")
    rows.write("first")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"stage": "dead", "ki')
    rows.write("second")
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"[1, 2]\n\xff\n")
    assert [row["kind"] for row in read(tmp_path / FILE)] == ["first", "unreadable", "second"] + ["unreadable"] * 2


def test_a_row_is_a_short_line() -> None:
    row = {"stage": "a", "kind": "time", "p50_ms": 12.34567, "seconds": [1.0] * 99, "at": 3.0, "text": "x" * 300}
    line = brief(row)
    assert line.startswith("a: time p50_ms 12.35 text xxx")
    assert line.endswith("x...")
    assert len(line) == 243
