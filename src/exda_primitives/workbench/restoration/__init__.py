"""Restores images of any size with a network, whole or in tiles, as tensors or as files."""

from .network import Restored, Restorer, restore
from .tiles import Seam

__all__ = ["Restored", "Restorer", "Seam", "restore"]
