"""Records a module when a step is recognised in it, and tells at a call what has changed since.

Kernels compute what was proven then. A module in which anything was exchanged, wrapped, hooked or set since is called
instead. What is replaced in its class, ``ClassRecords`` tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import nn

from ..ops.bare import does_more
from .classes import bases, held_by
from .settings import NOT_SETTINGS, recorded, same


class Snapshot(NamedTuple):
    """A record of a module, without the values of its tensors, which are read at every call.

    Attributes:
        kind: its class.
        settings: names of its attributes, private ones included.
        values: the record of each.
        size: how many attributes it has, those included that PyTorch keeps for itself in every module.
        shadows: names in its class that an attribute of the module would hide.
        tensors: names of its own parameters and buffers.
        children: name and snapshot of each child; None for a child that may be exchanged.
    """

    kind: type
    settings: tuple[str, ...]
    values: tuple[Any, ...]
    size: int
    shadows: tuple[str, ...]
    tensors: list[str]
    children: tuple[tuple[str, Snapshot | None], ...]

    def kinds(self) -> Iterator[type]:
        """Returns its class and those of its children that may not be exchanged."""
        yield self.kind
        for _, child in self.children:
            if child is not None:
                yield from child.kinds()


def snapshot(module: nn.Module, free: Collection[str] = (), name: str = "") -> Snapshot:
    """Returns a snapshot of a module in its present state.

    Args:
        module: the module.
        free: full names of parts that may be exchanged.
        name: the module's own full name, with which the names in ``free`` begin.

    Raises:
        UnrecordableError: if it holds an object within which a change would not be seen.
    """
    held = {key: child for key, child in module._modules.items() if child is not None}
    names = tuple(key for key in vars(module) if key not in NOT_SETTINGS)
    prefix = f"{name}." if name else ""
    return Snapshot(
        type(module),
        names,
        tuple(recorded(vars(module)[key], prefix + key) for key in names),
        len(names) + len(vars(nn.Module())),
        tuple({key: None for base in bases(type(module)) for key in held_by(base) if key not in (*names, "forward")}),
        _tensors(module),
        tuple(
            (key, None if prefix + key in free else snapshot(child, free, prefix + key)) for key, child in held.items()
        ),
    )


def difference(module: nn.Module, seen: Snapshot, name: str) -> str | None:
    """Returns how a module, whose name is given for the result, differs from its snapshot, or None."""
    if type(module) is not seen.kind:
        return f"{name} is {type(module).__name__} now"
    if does_more(module):
        return f"{name} has hooks"
    return difference_inside(module, seen, name)


def difference_inside(module: nn.Module, seen: Snapshot, name: str) -> str | None:
    """Returns how a module of the class in its snapshot differs from that, its own hooks aside; None if it does not."""
    if changed := changed_setting(module, seen, seen.size):
        return f"{name or 'the block'} has another {changed} now"
    if _tensors(module) != seen.tensors:
        return f"{name or 'the block'} holds something else now"
    children = module._modules
    if not (children or seen.children):
        return None
    if [key for key, child in children.items() if child is not None] != [key for key, _ in seen.children]:
        return f"{name or 'the block'} holds something else now"
    for key, child in seen.children:
        part = children[key]
        if child is not None and part is not None and (found := difference(part, child, key)):
            return f"{name}.{found}" if name else found
    return None


def changed_setting(module: nn.Module, seen: Snapshot, size: int, own: Collection[str] = ()) -> str | None:
    """Returns the name of an attribute that was set, changed within, added or removed; None if there is none.

    Args:
        module: the module, or one that has its settings.
        seen: the snapshot.
        size: how many attributes it had.
        own: names of further attributes that do not count.
    """
    held, compiling = module.__dict__, torch.compiler.is_compiling()
    # In most calls nothing has changed: the same objects are there, and no others.
    if not compiling and len(held) == size and all(map(is_, map(held.get, seen.settings), seen.values)):
        return None
    for key, value in zip(seen.settings, seen.values, strict=True):
        if key not in held or not same(held[key], value):
            return key
    if compiling:
        # The compiler cannot tell how many there are, nor list them.
        for key in seen.shadows:
            if key in held:
                return key
    elif len(held) != size:
        known = {*NOT_SETTINGS, *own, *seen.settings}
        return next((key for key in held if key not in known), None)
    return None


def _tensors(module: nn.Module) -> list[str]:
    """Returns the names of the module's own parameters and buffers; those that are None do not count."""
    found = [name for name, tensor in module._parameters.items() if tensor is not None]
    if module._buffers:
        found += [name for name, tensor in module._buffers.items() if tensor is not None]
    return found
