"""Files: ours, with the configuration inside, and those of other people's trainers."""

from .foreign import load_checkpoint
from .ours import load, save

__all__ = ["load", "load_checkpoint", "save"]
