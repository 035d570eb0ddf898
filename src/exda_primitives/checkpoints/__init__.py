"""Files: ours, with the configuration inside, and those of other people's trainers."""

from .exda_file import load, save
from .third_party import load_checkpoint

__all__ = ["load", "load_checkpoint", "save"]
