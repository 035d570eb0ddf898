"""Writes files whole or not at all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary file in the folder of ``path``, which replaces ``path`` when the block ends without an error.

    Until then, and after an error, ``path`` is unchanged.

    Raises:
        OSError: when the file cannot be created or moved into place.
    """
    # A hash and at most 20 characters of the name: a name of the file system's maximum length leaves no room for more.
    unique = f"{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}"
    partial = path.with_name(f".{path.name[:20]}.{unique}.partial")
    try:
        # Some writers, safetensors among them, create files that only the owner may read: restore the usual mode.
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        # Report the caller's path, not the temporary file, which is deleted below.
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to a file, whole or not at all.

    Raises:
        OSError: when it cannot be written; an existing file is unchanged.
    """
    with atomic_write(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all.

    Characters that UTF-8 cannot encode (file names that are not valid text have some) are escaped with a backslash.

    Raises:
        OSError: when it cannot be written; an existing file is unchanged.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
