"""What an adapter has to pass: the checks that this library's own families and backbones pass, for anybody's.

They need no test runner: a fault is an ``AssertionError`` that says which check found what.
"""

from .backbone import BACKBONE_CHECKS, check_backbone
from .family import FAMILY_CHECKS, check_family

__all__ = ["BACKBONE_CHECKS", "FAMILY_CHECKS", "check_backbone", "check_family"]
