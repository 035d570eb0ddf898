"""Optional packages, each imported when a tool needs it; an ``ExDAError`` names the extra that installs a missing one.

Each function returns the imported module.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...extras import require_extra


def pyvips() -> Any:
    """pyvips: reads and writes images."""
    return require_extra("pyvips", "restore")


def psutil() -> Any:
    """psutil: tells how much memory is in use and free."""
    return require_extra("psutil", "restore")


def fabric() -> Any:
    """Lightning Fabric: devices, precision, and training in several processes."""
    return require_extra("lightning_fabric", "train")


def fabric_strategies() -> Any:
    """Fabric's strategies: how training is distributed over devices."""
    return require_extra("lightning_fabric.strategies", "train")


def fabric_environments() -> Any:
    """Fabric's cluster environments: how a process learns its rank."""
    return require_extra("lightning_fabric.plugins.environments", "train")


def yaml() -> Any:
    """PyYAML: reads configuration files."""
    return require_extra("yaml", "train")


def peft() -> Any:
    """PEFT: low-rank adaptation."""
    return require_extra("peft", "adapt")


def tensorboard() -> Any:
    """PyTorch's writer of TensorBoard's event files."""
    return require_extra("torch.utils.tensorboard", "tensorboard")


def wandb() -> Any:
    """wandb: the client of Weights & Biases."""
    return require_extra("wandb", "wandb")


def huggingface_hub() -> Any:
    """huggingface_hub: the Hub's client, and model cards."""
    library = require_extra("huggingface_hub", "hub")
    # It imports its names on first use, but no submodules.
    require_extra("huggingface_hub.errors", "hub")
    return library


def sklearn(module: str) -> Any:
    """scikit-learn's submodule of this name, such as ``"cluster"``."""
    return require_extra(f"sklearn.{module}", "diagnose")


def umap() -> Any:
    """umap-learn; importing it takes seconds."""
    return require_extra("umap", "umap")


def has_umap() -> bool:
    """Returns whether umap-learn is installed, without importing it."""
    return find_spec("umap") is not None
