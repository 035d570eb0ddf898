"""Puts ExDA into a model (plan, validate, build, verify, swap) and takes it out again."""

from ..surgery.parents import ParentHook
from .adapter import Backbone, Family, Mismatch, Stage, TokenFamily
from .patch import from_host, patch, patched, unpatch
from .plan import plan
from .present import config_of, configs_of, is_patched, new_parameters, train_only_new
from .report import Match, NearMiss, Present, Report
from .shapes import TEMPERATURE, ConvFamily, ConvLayout, check_plain, core, find_temperature

__all__ = [
    "TEMPERATURE",
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
    "TokenFamily",
    "check_plain",
    "config_of",
    "configs_of",
    "core",
    "find_temperature",
    "from_host",
    "is_patched",
    "new_parameters",
    "patch",
    "patched",
    "plan",
    "train_only_new",
    "unpatch",
]
