"""Records a module when a step is recognised in it, and tells at a call what has changed since.

Kernels compute what was proven then. A module in which anything was exchanged, wrapped, hooked or set since is called
instead.
"""

from __future__ import annotations

from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType
from typing import NamedTuple

import torch
from torch import nn

from ..ops.bare import does_more

# Types of settings that are recorded: plain values, and functions, which deepcopy shares, so that copies compare equal.
_PLAIN = (bool, int, float, str, tuple, torch.dtype, FunctionType, BuiltinFunctionType, type(None))
_NOT_SETTINGS = vars(nn.Module()).keys()


class Snapshot(NamedTuple):
    """A record of a module, without the values of its tensors, which are read at every call.

    Attributes:
        kind: its class.
        settings: name and value of each plain attribute.
        tensors: names of its own parameters and buffers.
        children: name and snapshot of each child; None for a child that may be exchanged.
    """

    kind: type
    settings: tuple[tuple[str, object], ...]
    tensors: tuple[str, ...]
    children: tuple[tuple[str, Snapshot | None], ...]


def snapshot(module: nn.Module, free: Collection[str] = (), prefix: str = "") -> Snapshot:
    """Returns a snapshot of a module in its present state.

    Args:
        module: the module.
        free: full names of parts that may be exchanged.
        prefix: the module's own name with a dot, as it begins the names in ``free``.
    """
    held = {name: child for name, child in module._modules.items() if child is not None}
    return Snapshot(
        type(module),
        tuple(
            (name, value)
            for name, value in vars(module).items()
            if name not in _NOT_SETTINGS and not name.startswith("_") and type(value) in _PLAIN
        ),
        _tensors(module),
        tuple(
            (name, None if prefix + name in free else snapshot(child, free, f"{prefix}{name}."))
            for name, child in held.items()
        ),
    )


def difference(module: nn.Module, seen: Snapshot, name: str, kind: type | None = None) -> str | None:
    """Returns how a module differs from its snapshot, or None.

    Args:
        module: the module that is there now.
        seen: the snapshot taken before.
        name: the module's name, for the result.
        kind: class to expect if ``module`` replaces the one in the snapshot; its own hooks do not matter then.
    """
    if type(module) is not (kind or seen.kind):
        return f"{name} is {type(module).__name__} now"
    if kind is None and does_more(module):
        return f"{name} has hooks"
    held = module.__dict__
    for key, value in seen.settings:
        if key not in held or held[key] != value:
            return f"{name or 'the block'} has another {key} now"
    children = {key: child for key, child in module._modules.items() if child is not None}
    if _tensors(module) != seen.tensors or [*children] != [key for key, _ in seen.children]:
        return f"{name or 'the block'} holds something else now"
    for key, child in seen.children:
        if child is not None and (found := difference(children[key], child, f"{name}.{key}" if name else key)):
            return found
    return None


def _tensors(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of the module's own parameters and buffers; those that are None do not count."""
    found = [name for name, tensor in module._parameters.items() if tensor is not None]
    if module._buffers:
        found += [name for name, tensor in module._buffers.items() if tensor is not None]
    return tuple(found)
