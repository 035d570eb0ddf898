"""The packages of the extras ``train`` and ``adapt``, imported when they are needed."""

from __future__ import annotations

from typing import Any

from ...extras import imported


def fabric() -> Any:
    """Lightning Fabric: devices, and processes that train together."""
    return imported("lightning.fabric", "train")


def fabric_strategies() -> Any:
    """Fabric's ways to spread training over devices."""
    return imported("lightning.fabric.strategies", "train")


def fabric_environments() -> Any:
    """Fabric's ways to learn which process it is in."""
    return imported("lightning.fabric.plugins.environments", "train")


def yaml() -> Any:
    """PyYAML, which comes with Lightning."""
    return imported("yaml", "train")


def peft() -> Any:
    """PEFT: low-rank adaptation."""
    return imported("peft", "adapt")
