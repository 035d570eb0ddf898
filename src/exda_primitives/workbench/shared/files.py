"""Checks on the files and folders that a tool is given: their kind, whether they are writable, their fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import ConfigError


def files_below(
    folder: Path,
    failed: Callable[[Path, OSError], None],
    enter: Callable[[Path], bool] = lambda _: True,
    above: frozenset[Path] = frozenset(),
) -> Iterator[Path]:
    """Yields all files below a folder, in no particular order; follows links and includes broken ones.

    Args:
        folder: where to start; its subfolders are searched too.
        failed: called with each folder that cannot be listed, and the error.
        enter: returns whether to search a subfolder.
        above: resolved paths of the folders that led here; a link back to one of them is not followed, since it would
            never end.
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


def is_nonregular_file(path: Path) -> bool:
    """Whether the path exists and is no regular file: a folder, a device, or a pipe, on which a reader would block."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_writable(folder: Path) -> None:
    """Checks, before any work, that files can be written into a folder, which need not exist yet; creates nothing.

    Raises:
        ConfigError: if the path is no folder, cannot be created, or is not writable.
    """
    # The closest existing ancestor decides. lexists, as Path.exists raises where a folder above is not readable.
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written into" if there.is_dir() else "is a file"
        raise ConfigError(f"{folder}: cannot hold results: {there} {why}; give another folder")


def fingerprint(path: Path) -> str:
    """Returns the SHA-256, in hexadecimal, of a file, or of the names and contents of all files below a folder.

    Raises:
        OSError: for a file that cannot be read.
    """
    found = hashlib.sha256()
    if path.is_dir():
        # Sorted, as file systems list files in different orders.
        for file in sorted(path.rglob("*")):
            if file.is_file():
                # No name holds a NUL. A name that is not UTF-8 (surrogateescape) is hashed by its bytes.
                line = f"{file.relative_to(path).as_posix()}\0{fingerprint(file)}\n"
                found.update(line.encode("utf-8", "surrogateescape"))
        return found.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(2**20):
            found.update(block)
    return found.hexdigest()
