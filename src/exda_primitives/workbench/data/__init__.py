"""Images for training and testing: synthetic degradations, pairs made from clean images, public benchmarks."""

from .benchmarks import PairedFiles
from .check import Checked, check
from .decode import read_image
from .degradations import DEGRADATIONS, degrade
from .folders import paired_folders
from .images import Images, open_images
from .paired import Pair, PairedFileSet, PairedSet

__all__ = [
    "DEGRADATIONS",
    "Checked",
    "Images",
    "Pair",
    "PairedFileSet",
    "PairedFiles",
    "PairedSet",
    "check",
    "degrade",
    "open_images",
    "paired_folders",
    "read_image",
]
