"""Packages that extras bring, each imported when a tool needs it; where one is missing, an ``ExDAError`` says so."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...extras import imported


def pyvips() -> Any:
    """The module that reads and writes pictures."""
    return imported("pyvips", "restore")


def psutil() -> Any:
    """The module that knows how much memory there is."""
    return imported("psutil", "restore")


def fabric() -> Any:
    """Lightning Fabric: devices, and processes that train together."""
    return imported("lightning_fabric", "train")


def fabric_strategies() -> Any:
    """Fabric's ways to spread training over devices."""
    return imported("lightning_fabric.strategies", "train")


def fabric_environments() -> Any:
    """Fabric's ways to learn which process it is in."""
    return imported("lightning_fabric.plugins.environments", "train")


def yaml() -> Any:
    """PyYAML: files of configurations."""
    return imported("yaml", "train")


def peft() -> Any:
    """PEFT: low-rank adaptation."""
    return imported("peft", "adapt")


def sklearn(module: str) -> Any:
    """A module of scikit-learn, by its name in the package."""
    return imported(f"sklearn.{module}", "diagnose")


def umap() -> Any:
    """umap-learn; importing it takes seconds."""
    return imported("umap", "umap")


def has_umap() -> bool:
    """Whether umap-learn is installed; does not import it."""
    return find_spec("umap") is not None
