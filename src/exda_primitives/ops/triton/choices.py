"""Which configuration of a kernel was the fastest, kept on disk: timing them all takes seconds a kind of start.

One small JSON file a kernel and GPU model, in the folder that the environment variable ``EXDA_CACHE`` names or else in
Triton's cache. Its name says the kernel's source, its configurations and Triton's version: what changes is timed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

from ...files import write_text


def folder() -> Path:
    """Where the files lie."""
    if given := os.environ.get("EXDA_CACHE"):
        return Path(given)
    of_triton = os.environ.get("TRITON_CACHE_DIR")
    cache = Path(of_triton) if of_triton else Path(os.environ.get("TRITON_HOME") or Path.home()) / ".triton" / "cache"
    return cache / "exda_primitives"


class Choices:
    """The choices that were made for a kernel, here and in earlier processes: texts by texts.

    Args:
        kernel: its name.
        *about: what else they depend on.
    """

    def __init__(self, kernel: str, *about: str) -> None:
        told_apart = hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]
        self._path = folder() / f"{kernel}-{told_apart}.json"
        self._made = _read(self._path)

    def get(self, kind: str) -> str | None:
        """What was chosen for it; None if nothing was."""
        return self._made.get(kind)

    def set(self, kind: str, choice: str) -> None:
        """Keeps it, also on disk if that can be written to."""
        # Other processes may have chosen since: theirs are kept, for ours there is one of each.
        self._made = _read(self._path) | self._made | {kind: choice}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._made, indent=0, sort_keys=True) + "\n")


_damaged: set[Path] = set()


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:
        found = None
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        return found
    if path not in _damaged:
        _damaged.add(path)
        warnings.warn(
            f"{path} is damaged: no configurations can be read from it; those of this kernel are timed again, and the "
            "file is replaced",
            stacklevel=2,
        )
    return {}
