"""The fastest configuration of each kernel, kept on disk: timing all takes seconds for every kind of start.

A kind of start is a kernel's constants, dtypes, alignment and size (``kernel.Kernel.kind``). There is one small JSON
file for each kernel and GPU model, in the folder that the environment variable ``EXDA_CACHE`` names or else in Triton's
cache. Its name ends in a hash of the kernel's source, its configurations and Triton's version: after a change of these,
the kernel is timed anew.
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
    """Returns the folder of the files."""
    if given := os.environ.get("EXDA_CACHE"):
        return Path(given)
    of_triton = os.environ.get("TRITON_CACHE_DIR")
    cache = Path(of_triton) if of_triton else Path(os.environ.get("TRITON_HOME") or Path.home()) / ".triton" / "cache"
    return cache / "exda_primitives"


class ConfigCache:
    """The configurations chosen for one kernel, in this process and in earlier ones, by kind of start.

    Args:
        kernel: the kernel's name, which begins the file's name.
        *versions: whatever else the choices depend on (GPU model, Triton's version, source, configurations).
    """

    def __init__(self, kernel: str, *versions: str) -> None:
        digest = hashlib.sha256("\0".join(versions).encode()).hexdigest()[:16]
        self._path = folder() / f"{kernel}-{digest}.json"
        self._made = _read(self._path)

    def get(self, kind: str) -> str | None:
        """Returns the configuration chosen for this kind of start; None if none was."""
        return self._made.get(kind)

    def set(self, kind: str, choice: str) -> None:
        """Keeps a choice, on disk too if the folder can be written to."""
        # Read again: other processes may have added theirs since. Where both have chosen, ours counts.
        self._made = _read(self._path) | self._made | {kind: choice}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._made, indent=0, sort_keys=True) + "\n")


# Files that were warned of, so that each is once.
_warned: set[Path] = set()


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:
        found = None
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        return found
    if path not in _warned:
        _warned.add(path)
        warnings.warn(
            f"{path} is damaged: no configurations can be read from it; those of this kernel are timed again, and the "
            "file is replaced",
            stacklevel=2,
        )
    return {}
