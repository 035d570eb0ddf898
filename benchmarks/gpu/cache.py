"""Compiled kernels: the folder of Triton's cache, and an archive of it to take to the GPU's machine."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from .checkout import PACKED

KERNELS = Path(tempfile.gettempdir()) / "exda_primitives-kernels"
"""Triton's cache in all calls. Its files refer to each other by full paths, so it works only in this folder."""

ARCHIVE = PACKED / "kernels.tar.gz"

_KEPT = (".cubin", ".json", ".so")
"""Endings of the files that a launch needs."""


def pack_kernels() -> None:
    """Writes the compiled kernels to the archive."""
    with tarfile.open(ARCHIVE, "w:gz") as archive:
        for path in sorted(KERNELS.rglob("*")):
            if path.suffix in _KEPT:
                archive.add(path, str(path.relative_to(KERNELS)))


def unpack_kernels() -> None:
    """Fills the cache if there is an archive and no cache yet.

    Kernels of other code or versions do no harm: Triton's keys include both, so that they are never looked up.
    """
    if ARCHIVE.exists() and not KERNELS.exists():
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(KERNELS, filter="data")
