"""Where the project's packages are when nothing of it is installed."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

PACKED = ROOT / "build" / "gpu"
"""What ``pack`` writes; not in git."""

SITE = PACKED / "site"
"""Packages that are missing on the GPU's machine, unpacked."""

NEEDED = ("einops", "safetensors")
"""What ``import exda_primitives`` needs beside torch, and torch's own company."""

_COMMIT = PACKED / "commit"
_PACKAGE = "exda_primitives"


def find_packages() -> None:
    """Makes the project importable where it is not installed, and what was packed where it is missing."""
    if find_spec(_PACKAGE) is None:
        sys.path.insert(0, str(ROOT / "src"))
    if SITE.is_dir():
        # Behind what the machine has.
        sys.path.append(str(SITE))


def fingerprint() -> str:
    """Of the project's code, shared by all files of it: a machine that got a copy knows no commit."""
    total = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        total.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def packed_commit() -> str | None:
    """Of the code as it is, where ``pack`` has left it: a copy of the checkout knows none."""
    lines = _COMMIT.read_text().split() if _COMMIT.exists() else []
    return lines[1] if lines[:1] == [fingerprint()] else None


def pack_commit(commit: str) -> None:
    """Leaves it beside what is carried along."""
    _COMMIT.write_text(f"{fingerprint()} {commit}\n")


def scratch() -> Path:
    """A folder outside of the checkout for what one stage leaves to the next, a folder a version of the code."""
    folder = Path(tempfile.gettempdir()) / f"{_PACKAGE}-{fingerprint()}"
    folder.mkdir(exist_ok=True)
    return folder
