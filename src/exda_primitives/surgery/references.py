"""Finds modules that a model refers to otherwise than as children: replacing children does not reach these places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

OF_MODULES = vars(nn.Module()).keys()
"""Names of the attributes that every module has: its parameters, children, hooks, ..."""
_EMPTY = CellType()
"""What a function closes over as long as the variable has no value."""


def references(model: nn.Module, modules: Iterable[nn.Module]) -> dict[int, str]:
    """Finds attributes of a model's modules that refer to one of ``modules``, to its methods, or to a closure over it.

    Attributes of the module itself, and of its parts, do not count.

    Returns:
        ``id`` of the module -> why it cannot be replaced, by the first such attribute, for those that have one.
    """
    parts = {id(module): {id(part) for part in module.modules()} for module in modules}
    owners = list(model.named_modules()) if parts else []
    # A dictionary of children may be an attribute of another module: what replaces children reaches it.
    children = {id(owner._modules) for _, owner in owners}
    found: dict[int, str] = {}
    for name, owner in owners:
        for attribute, held in vars(owner).items():
            for module in () if attribute in OF_MODULES else modules_in(held, children):
                if id(module) in parts and id(owner) not in parts[id(module)]:
                    found.setdefault(id(module), f"{name}.{attribute}" if name else attribute)
    why = "refers to it as well, and would go on calling the original"
    return {key: f"{path!r} {why}" for key, path in found.items()}


def modules_in(held: Any, skipped: Set[int] = frozenset()) -> Iterator[nn.Module]:
    """Yields the modules in lists, tuples, sets, dictionaries, partials, bound methods and closures, at any depth.

    It does not go into modules, nor into what has one of the ids ``skipped``.
    """
    yield from _modules_in(held, skipped, set())


def _modules_in(held: Any, skipped: Set[int], seen: set[int]) -> Iterator[nn.Module]:
    if isinstance(held, nn.Module):
        yield held
    elif id(held) not in skipped and id(held) not in seen and (inner := _inside(held)):
        seen.add(id(held))
        for each in inner:
            yield from _modules_in(each, skipped, seen)


def _inside(held: Any) -> Iterable[Any]:
    if isinstance(held, list | tuple | set | frozenset):
        return held
    if isinstance(held, dict):
        return held.values()
    if isinstance(held, partial):
        return (held.func, *held.args, *held.keywords.values())
    if isinstance(held, MethodType):
        return (held.__self__, held.__func__)
    if isinstance(held, FunctionType):
        # A cell without a value equals none that has one, whatever the value is.
        return [cell.cell_contents for cell in held.__closure__ or () if cell != _EMPTY]
    return ()
