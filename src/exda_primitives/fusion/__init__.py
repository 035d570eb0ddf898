"""Fuses transformer blocks: finds them in a model, replaces them by few passes over the maps, and puts them back."""

from .backends import BackendReport, Computed, backend_report
from .fuse import fuse, unfuse
from .report import FusedStep, FusionReport, LeftAlone

__all__ = ["BackendReport", "Computed", "FusedStep", "FusionReport", "LeftAlone", "backend_report", "fuse", "unfuse"]
