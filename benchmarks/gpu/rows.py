"""Results: a line of JSON each, on disk as soon as it is known."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "results.jsonl"

Row = dict[str, Any]


class Rows:
    """Adds rows to a folder's file; several processes may do so at a time.

    Args:
        folder: of the results.
        stage: named in each row.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.path, self.stage, self._begun = folder / FILE, stage, time.monotonic()

    def write(self, kind: str, **data: Any) -> None:
        """One row.

        Args:
            kind: of row.
            data: plain, or text is made of it.
        """
        seconds = round(time.monotonic() - self._begun, 1)
        row = {"stage": self.stage, "kind": kind, **data, "at": seconds}
        # Begins a line: whoever died while writing has not ended his.
        line = f"\n{json.dumps(row, default=str)}\n".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def read(path: Path) -> list[Row]:
    """All rows of a file; of a line that was not finished, a row of kind ``"unreadable"``."""
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
    """A row as a line to look at."""
    values = " ".join(f"{name} {_short(value)}" for name, value in row.items() if name not in _LONG)
    text = f"{row['stage']}: {row['kind']} {values}"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
