"""Finds the pairs of public benchmarks in the folders of the official repositories; no file is skipped silently."""

from .allweather import allweather_files
from .cdd11 import cdd11_files
from .files import FilePair, PairedFiles
from .medical import medical_files
from .moceir import moceir_files
from .promptir import REPEATS, promptir_files
from .weatherbench import weatherbench_files

__all__ = [
    "REPEATS",
    "FilePair",
    "PairedFiles",
    "allweather_files",
    "cdd11_files",
    "medical_files",
    "moceir_files",
    "promptir_files",
    "weatherbench_files",
]
