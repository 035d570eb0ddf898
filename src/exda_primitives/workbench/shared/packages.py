"""Packages that extras bring, each imported when a tool needs it; where one is missing, an ``ExDAError`` says so."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...extras import require_extra


def pyvips() -> Any:
    """The module that reads and writes images."""
    return require_extra("pyvips", "restore")


def psutil() -> Any:
    """The module that knows how much memory there is."""
    return require_extra("psutil", "restore")


def fabric() -> Any:
    """Lightning Fabric: devices, and processes that train together."""
    return require_extra("lightning_fabric", "train")


def fabric_strategies() -> Any:
    """Fabric's ways to spread training over devices."""
    return require_extra("lightning_fabric.strategies", "train")


def fabric_environments() -> Any:
    """Fabric's ways to learn which process it is in."""
    return require_extra("lightning_fabric.plugins.environments", "train")


def yaml() -> Any:
    """PyYAML: files of configurations."""
    return require_extra("yaml", "train")


def peft() -> Any:
    """PEFT: low-rank adaptation."""
    return require_extra("peft", "adapt")


def huggingface_hub() -> Any:
    """The Hub's client, and its model cards."""
    return require_extra("huggingface_hub", "hub")


def sklearn(module: str) -> Any:
    """A module of scikit-learn, by its name in the package."""
    return require_extra(f"sklearn.{module}", "diagnose")


def umap() -> Any:
    """umap-learn; importing it takes seconds."""
    return require_extra("umap", "umap")


def has_umap() -> bool:
    """Whether umap-learn is installed; does not import it."""
    return find_spec("umap") is not None
