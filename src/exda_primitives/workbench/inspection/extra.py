"""The packages of the extras ``diagnose`` and ``umap``, imported when they are needed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from ...extras import imported


def sklearn(module: str) -> Any:
    """A module of scikit-learn, by its name in the package.

    Raises:
        ExDAError: where it is missing.
    """
    return imported(f"sklearn.{module}", "diagnose")


def umap() -> Any:
    """umap-learn; importing it takes seconds.

    Raises:
        ExDAError: where it is missing.
    """
    return imported("umap", "umap")


def has_umap() -> bool:
    """Whether umap-learn is installed; does not import it."""
    return find_spec("umap") is not None


def versions() -> dict[str, str | None]:
    """Of the packages that the figures depend on; None for one that is missing."""
    return {name: _version(name) for name in ("scikit-learn", "umap-learn")}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
