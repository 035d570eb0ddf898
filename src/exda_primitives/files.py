"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a file beside ``path`` to write to, which takes its place when the block ends without an error.

    Until then, and after an error, ``path`` is what it was.

    Raises:
        OSError: when the file cannot be made or put in its place.
    """
    # Its own name may be as long as the file system takes.
    told_apart = f"{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}"
    partial = path.with_name(f".{path.name[:20]}.{told_apart}.partial")
    try:
        # Some writers, safetensors among them, make files that only their owner may read.
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        # Of the name that was given, not of one that is gone.
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Puts ``data`` into a file, whole or not at all.

    Raises:
        OSError: when it cannot be written; what was there is still there.
    """
    with atomic_write(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, whole or not at all; what is no text in it, as in names of files that are none, is escaped.

    Raises:
        OSError: when it cannot be written; what was there is still there.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
