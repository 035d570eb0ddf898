"""Restores images of any size with a network, whole or in tiles, as tensors or as files."""

from importlib import import_module
from typing import TYPE_CHECKING

from .tiled import Restored
from .tiles import Seam

__all__ = ["Restored", "Restorer", "Seam", "restore"]

if TYPE_CHECKING:
    from .network import Restorer, restore
else:

    def __getattr__(name: str) -> object:
        """Imports on first use what needs PyTorch: ONNX files are restored without it."""
        if name in ("Restorer", "restore"):
            return getattr(import_module(f"{__name__}.network"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
