"""Records what a module or a class holds, and compares it with what is there later."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from operator import is_
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

from ..surgery.references import OF_MODULES

NOT_SETTINGS = OF_MODULES | {"_compiled_call_impl", "_former_parameters", "_is_replica"}
"""Names that PyTorch keeps for itself among a module's attributes, those of compiled modules and replicas included."""

# Nothing changes within a value of these types; deepcopy shares functions, so that copies compare equal.
_PLAIN = (bool, int, float, complex, str, bytes, range, type(None), FunctionType, BuiltinFunctionType)
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_ORDERED, _SETS, _DICTIONARIES = (list, tuple, torch.Size), (set, frozenset), (dict, OrderedDict)


class UnrecordableError(Exception):
    """Something is held within which a change would not be seen; the message says what, and where."""


def recorded(value: Any, name: str) -> Any:
    """Returns a plain value, or a copy of a list, tuple, set or dictionary of such.

    Args:
        value: what a module or a class holds.
        name: its name, for the error.

    Raises:
        UnrecordableError: for anything else: tensors, for one, and objects of other classes.
    """
    kind = type(value)
    if kind in _PLAIN or kind in _OF_TORCH or isinstance(value, type | Enum):
        return value
    if kind in _ORDERED or kind in _SETS:
        held = [recorded(each, name) for each in value]
        # A tuple of plain values is itself plain.
        return value if kind is not list and kind is not set and all(map(is_, held, value)) else kind(held)
    if kind in _DICTIONARIES:
        return kind([(recorded(key, name), recorded(each, name)) for key, each in value.items()])
    raise UnrecordableError(f"{name} is or holds a {kind.__name__}, within which a change would not be seen")


def same(found: Any, seen: Any) -> bool:
    """Whether a value that is there now is what ``recorded`` returned before, of the same type throughout."""
    kind = type(found)
    if kind is not type(seen):
        return False
    if kind in _ORDERED:
        return len(found) == len(seen) and all(map(same, found, seen))
    if kind in _DICTIONARIES:
        return same([*found.items()], [*seen.items()])
    if found is seen:
        return True
    # Of one plain type: ``==`` tells, as it does not for tensors.
    equal: bool = (kind in _PLAIN or kind in _OF_TORCH or kind in _SETS) and found == seen
    return equal
