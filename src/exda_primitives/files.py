"""Files that are written whole or not at all, and what tells them apart."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
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


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, whole or not at all; what is no text in it, as in names of files that are none, is escaped.

    Raises:
        OSError: when it cannot be written; what was there is still there.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def files_below(
    folder: Path,
    failed: Callable[[Path, OSError], None],
    enter: Callable[[Path], bool] = lambda _: True,
    above: frozenset[Path] = frozenset(),
) -> Iterator[Path]:
    """All files below a folder, those behind links and links that lead nowhere as well, in no order.

    Args:
        folder: to look into, as are those below.
        failed: is told of folders that cannot be looked into.
        enter: whether to look into a folder below.
        above: real places of the folders on the way there; a link back to one of them would go on for ever.
    """
    try:
        real = folder.resolve()
        entries = list(folder.iterdir()) if real not in above else []
    except OSError as error:
        failed(folder, error)
        return
    for entry in entries:
        if not os.path.isdir(entry):
            yield entry
        elif enter(entry):
            yield from files_below(entry, failed, enter, above | {real})


def check_writable(folder: Path) -> None:
    """Makes sure, before the work, that files can be written into a folder, which need not be there yet.

    Raises:
        ConfigError: where it is none, cannot be made, or is not for us to write into; nothing was made.
    """
    # Path.exists raises where a folder above may not be looked into.
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written into" if there.is_dir() else "is a file"
        raise ConfigError(f"{folder}: cannot hold results: {there} {why}; give another folder")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder, in hexadecimal.

    Raises:
        OSError: for a file that cannot be read.
    """
    found = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                line = f"{file.relative_to(path).as_posix()}\0{fingerprint(file)}\n"
                found.update(line.encode("utf-8", "surrogateescape"))
        return found.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(2**20):
            found.update(block)
    return found.hexdigest()
