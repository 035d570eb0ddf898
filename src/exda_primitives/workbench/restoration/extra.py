"""The packages of the extra ``restore``, imported when they are needed."""

from __future__ import annotations

from typing import Any

from ...extras import imported


def pyvips() -> Any:
    """The module that reads and writes pictures."""
    return imported("pyvips", "restore")


def psutil() -> Any:
    """The module that knows how much memory there is."""
    return imported("psutil", "restore")
