"""Images through a restoration network: files of any size, whole or in tiles."""

from .network import Restored, Restorer, restore
from .tiles import Seam

__all__ = ["Restored", "Restorer", "Seam", "restore"]
