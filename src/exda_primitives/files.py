"""Files that are written whole or not at all, and what tells them apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file beside ``path`` to write to, which takes its place when the block ends without an error.

    Until then, and after an error, ``path`` is what it was.

    Raises:
        OSError: when the file cannot be made or put in its place.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Some writers, safetensors among them, make files that only their owner may read.
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder, in hexadecimal.

    Raises:
        OSError: for a file that cannot be read.
    """
    found = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                found.update(f"{file.relative_to(path).as_posix()}\0{fingerprint(file)}\n".encode())
        return found.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(2**20):
            found.update(block)
    return found.hexdigest()
