"""Plan, validate, build, verify, swap; and back."""

from .adapter import Backbone, Family, Mismatch, Stage
from .architecture import Architecture, StateShapes, Unlike, expansion_factor
from .parents import ParentHook
from .patch import config_of, from_host, is_patched, new_parameters, patch, patched, unpatch
from .plan import plan
from .registry import register_adapter
from .report import Match, NearMiss, Report
from .shapes import ConvFamily, ConvLayout

__all__ = [
    "Architecture",
    "Backbone",
    "ConvFamily",
    "ConvLayout",
    "Family",
    "Match",
    "Mismatch",
    "NearMiss",
    "ParentHook",
    "Report",
    "Stage",
    "StateShapes",
    "Unlike",
    "config_of",
    "expansion_factor",
    "from_host",
    "is_patched",
    "new_parameters",
    "patch",
    "patched",
    "plan",
    "register_adapter",
    "unpatch",
]
