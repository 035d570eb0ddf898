"""Reference backbones that take the official state dicts strictly."""

from .restormer import Restormer

__all__ = ["Restormer"]
