"""Teaches a trained network a new degradation by a few new parameters, which one small file holds."""

from .asked import Asked
from .file import load, save
from .methods import METHODS, Method
from .run import Adapted, adapt
from .settings import Adaptation, prepare

__all__ = ["METHODS", "Adaptation", "Adapted", "Asked", "Method", "adapt", "load", "prepare", "save"]
