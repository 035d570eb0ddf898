"""Checks for adapters: the ones that this library's own families and backbones pass, usable for yours.

They need no test runner: a failure raises an ``AssertionError`` that names the check and what it found.
"""

from .backbone import BACKBONE_CHECKS, check_backbone
from .family import FAMILY_CHECKS, check_family

__all__ = ["BACKBONE_CHECKS", "FAMILY_CHECKS", "check_backbone", "check_family"]
