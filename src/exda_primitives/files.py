"""Files that are written whole or not at all."""

from __future__ import annotations

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
