"""Finds checkpoints by name in a folder of the user's, and checks their hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..errors import CheckpointError
from .published import PUBLISHED

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
HASHES = "SHA256SUMS"
"""File in the folder with a line "hash  file name" for each file, as ``sha256sum`` writes and checks it."""

_CHUNK = 1 << 20


def home() -> Path:
    """Returns the folder of checkpoints: that of the environment variable ``EXDA_HOME``, by default ``~/.exda``."""
    return Path(os.environ.get("EXDA_HOME") or Path.home() / ".exda")


def present(name: str) -> Path | None:
    """Returns the file of that name in the folder, with one of ``SUFFIXES`` or as it is; None if there is none."""
    if Path(name).name != name:
        # Something with a folder in it is a path, not a name.
        return None
    candidates = (home() / f"{name}{suffix}" for suffix in ("", *SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


def checkpoint_by_name(name: str) -> Path | None:
    """Returns the file of that name in the folder, its hash checked where one is known.

    Args:
        name: name of a file in the folder, with or without its ending.

    Returns:
        The file; None if there is none and no published checkpoint has the name.

    Raises:
        CheckpointError: for a published checkpoint that is not in the folder, with where its authors put it, and for a
            file with another SHA-256 than published or written in ``SHA256SUMS``.
    """
    path = present(name)
    published = PUBLISHED.get(name)
    if path is None:
        if published is None:
            return None
        raise CheckpointError(
            f"{name}: there is no such file here and none in {home()}. Its authors put it at {published.where} (file "
            f"{published.file}, licence: {published.licence}); save it as "
            f"{home() / (name + Path(published.file).suffix)}, or give its path."
        )
    expected = {source: hash_ for source, hash_ in _known_hashes(path, name).items() if hash_}
    if expected:
        found = sha256(path)
        for source, hash_ in expected.items():
            if hash_ != found:
                raise CheckpointError(f"{path}: its SHA-256 is {found}, {source} says {hash_}: it is another file.")
    return path


def _known_hashes(path: Path, name: str) -> dict[str, str | None]:
    listed = path.parent / HASHES
    published = PUBLISHED.get(name)
    found = {"its authors' page": published.sha256 if published else None}
    if listed.is_file():
        lines = [line.split(maxsplit=1) for line in listed.read_text(errors="replace").splitlines()]
        # A star before the name says that the file was read as binary.
        files = {line[1].lstrip("*"): line[0].lower() for line in lines if len(line) == 2}
        found[str(listed)] = files.get(path.name)
    return found


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
