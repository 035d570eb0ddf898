"""Reads and writes files: this library's own, with the configuration inside, and checkpoints of other trainers."""

from .exda_file import load, save
from .third_party import load_checkpoint

__all__ = ["load", "load_checkpoint", "save"]
