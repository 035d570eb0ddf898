"""Pictures to train and test with: degradations, clean pictures made into pairs, and the public benchmarks."""

from .benchmarks import PairedFiles
from .decode import read_picture
from .degradations import DEGRADATIONS, degrade
from .paired import Pair, PairedFileSet, PairedSet
from .pictures import Pictures, open_pictures

__all__ = [
    "DEGRADATIONS",
    "Pair",
    "PairedFileSet",
    "PairedFiles",
    "PairedSet",
    "Pictures",
    "degrade",
    "open_pictures",
    "read_picture",
]
