"""Pictures to train and test with: degradations, clean pictures made into pairs, and the public benchmarks."""

from .benchmarks import PairedFiles
from .check import Checked, check
from .decode import read_picture
from .degradations import DEGRADATIONS, degrade
from .folders import paired_folders
from .paired import Pair, PairedFileSet, PairedSet
from .pictures import Pictures, open_pictures

__all__ = [
    "DEGRADATIONS",
    "Checked",
    "Pair",
    "PairedFileSet",
    "PairedFiles",
    "PairedSet",
    "Pictures",
    "check",
    "degrade",
    "open_pictures",
    "paired_folders",
    "read_picture",
]
