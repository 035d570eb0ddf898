"""Reads result files of either form: with the envelope of ``workbench.shared.results``, or plain JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.shared.machine import machine_line
from exda_primitives.workbench.shared.results import Result

from .claim import Source


def source(path: Path, folder: Path, result: Result) -> Source:
    """Returns the source of a result (see ``workbench.shared.results``), with the seeds measured so far."""
    asked, found = (set(result["seeds"]), {run["seed"] for run in result["runs"] if "seed" in run})
    seeds = ", ".join(map(str, sorted(found)))
    if asked > found:
        seeds += f" (of {', '.join(map(str, sorted(asked)))})"
    return Source(str(path.relative_to(folder)), seeds, machine_line(result["machine"]), result["command"])


def hours_of(result: Result) -> float:
    """Returns how many hours of wall-clock time all runs of a result were trained for, without scoring."""
    seconds: float = sum(leg["seconds"] for run in result["runs"] for leg in run.get("legs", []))
    return seconds / 3600


def plain(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Reads a plain JSON result without the envelope, or returns None if the file does not exist.

    Args:
        path: the file.
        keys: top-level keys that it must have.

    Raises:
        ConfigError: for a file that is damaged or lacks a key.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); measure again") from None
    missing = [key for key in keys if not (isinstance(found, dict) and key in found)]
    if missing:
        raise ConfigError(f"{path}: lacks {missing[0]!r}; it is damaged or of another version, measure again")
    held: dict[str, Any] = found
    return held
