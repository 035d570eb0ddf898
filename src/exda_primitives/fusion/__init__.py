"""Transformer blocks computed in few passes: found in a model, put in place, taken out, and reported on."""

from .backends import BackendReport, Computed, backend_report
from .fuse import fuse, unfuse
from .report import FusedStep, FusionReport, LeftAlone

__all__ = ["BackendReport", "Computed", "FusedStep", "FusionReport", "LeftAlone", "backend_report", "fuse", "unfuse"]
