"""Files and folders that a tool is given: what they are, whether they can be written, what tells them apart."""

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


def is_something_else(path: Path) -> bool:
    """Whether there is something that is no regular file: a folder, a device, or a pipe, for whose writer one waits."""
    return os.path.exists(path) and not os.path.isfile(path)


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
