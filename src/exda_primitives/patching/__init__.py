"""Plan, validate, build, verify, swap; and back."""

from ..surgery.parents import ParentHook
from .adapter import Backbone, Family, Mismatch, Stage
from .architecture import Architecture, StateShapes, Unlike, expansion_factor
from .patch import from_host, patch, patched, unpatch
from .plan import plan
from .present import config_of, configs_of, is_patched, new_parameters, train_only_new
from .registry import register_adapter, unregister_adapter
from .report import Match, NearMiss, Present, Report
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
    "Present",
    "Report",
    "Stage",
    "StateShapes",
    "Unlike",
    "config_of",
    "configs_of",
    "expansion_factor",
    "from_host",
    "is_patched",
    "new_parameters",
    "patch",
    "patched",
    "plan",
    "register_adapter",
    "train_only_new",
    "unpatch",
    "unregister_adapter",
]
