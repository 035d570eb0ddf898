"""Compiled kernels: where Triton keeps them, and an archive of them to carry along."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from .checkout import PACKED

KERNELS = Path(tempfile.gettempdir()) / "exda_primitives-kernels"
"""Triton's cache in all calls; its files name each other by their full paths, so that it works nowhere else."""

ARCHIVE = PACKED / "kernels.tar.gz"

_KEPT = (".cubin", ".json", ".so")
"""What a launch needs."""


def pack_kernels() -> None:
    """Writes the archive."""
    with tarfile.open(ARCHIVE, "w:gz") as archive:
        for path in sorted(KERNELS.rglob("*")):
            if path.suffix in _KEPT:
                archive.add(path, str(path.relative_to(KERNELS)))


def unpack_kernels() -> None:
    """Fills the cache if there is an archive and no cache; what does not fit code or versions is never looked up."""
    if ARCHIVE.exists() and not KERNELS.exists():
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(KERNELS, filter="data")
