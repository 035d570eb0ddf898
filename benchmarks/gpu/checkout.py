"""Makes the project importable from a bare checkout, and identifies its code."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

PACKED = ROOT / "build" / "gpu"
"""The folder that ``pack`` writes; not in git."""

SITE = PACKED / "site"
"""Unpacked packages that the GPU's machine may lack."""

NEEDED = ("einops", "safetensors")
"""Packages that ``import exda_primitives`` needs in addition to torch and torch's dependencies."""

_COMMIT = PACKED / "commit"
_PACKAGE = "exda_primitives"


def find_packages() -> None:
    """Makes the project importable if it is not installed, and the packed packages if they are missing."""
    if find_spec(_PACKAGE) is None:
        sys.path.insert(0, str(ROOT / "src"))
    if SITE.is_dir():
        # Last on the path: packages of the machine take precedence.
        sys.path.append(str(SITE))


def fingerprint() -> str:
    """Returns a hash over all Python files of the project: a machine with a mere copy knows no commit."""
    total = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        total.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def packed_commit() -> str | None:
    """Returns the commit that ``pack`` wrote, or None if there is none or the code has changed since."""
    lines = _COMMIT.read_text().split() if _COMMIT.exists() else []
    return lines[1] if lines[:1] == [fingerprint()] else None


def pack_commit(commit: str) -> None:
    """Writes the commit with the code's fingerprint to ``PACKED``."""
    _COMMIT.write_text(f"{fingerprint()} {commit}\n")


def scratch() -> Path:
    """Returns the folder for files that stages share: outside the checkout, one per version of the code."""
    folder = Path(tempfile.gettempdir()) / f"{_PACKAGE}-{fingerprint()}"
    folder.mkdir(exist_ok=True)
    return folder
