"""Result rows: one line of JSON each, written to disk at once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "results.jsonl"

Row = dict[str, Any]


class Rows:
    """Appends rows to a folder's file; several processes may do so at the same time.

    Args:
        folder: folder of the results.
        stage: stage that each row names.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.path, self.stage, self._begun = folder / FILE, stage, time.monotonic()

    def write(self, kind: str, **data: Any) -> None:
        """Appends a row.

        Args:
            kind: kind of the row.
            data: its entries; values that JSON does not have become text.
        """
        seconds = round(time.monotonic() - self._begun, 1)
        row = {"stage": self.stage, "kind": kind, **data, "at": seconds}
        # A newline first: a process that died while writing has left its line unfinished.
        line = f"\n{json.dumps(row, default=str)}\n".encode()
        # O_APPEND and a single write keep rows of several processes apart.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def read(path: Path) -> list[Row]:
    """Reads all rows of a file; an unfinished line becomes a row of kind ``"unreadable"``."""
    if not path.exists():
        return []
    return [_row(line) for line in path.read_text(errors="replace").splitlines() if line.strip()]


def _row(line: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not (isinstance(found, dict) and {"stage", "kind"} <= found.keys()):
        return {"stage": "", "kind": "unreadable", "line": line}
    return found


_WIDTH = 240
_LONG = frozenset({"at", "kind", "seconds", "stage", "trace"})


def brief(row: Row) -> str:
    """Formats a row as one short line for the terminal."""
    values = " ".join(f"{name} {_short(value)}" for name, value in row.items() if name not in _LONG)
    text = f"{row['stage']}: {row['kind']} {values}"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
