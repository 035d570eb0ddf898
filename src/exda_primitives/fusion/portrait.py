"""What a module looked like when a step was recognised in it, to be compared with what is there at a call.

Kernels compute what was proven of a module then; whatever has been exchanged, wrapped, hooked or set since is called.
"""

from __future__ import annotations

from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType
from typing import NamedTuple

import torch
from torch import nn

from ..ops.bare import does_more

# Compared by value, or functions, which there is one of: so that copies of a module look the same.
_PLAIN = (bool, int, float, str, tuple, torch.dtype, FunctionType, BuiltinFunctionType, type(None))
_NOT_SETTINGS = vars(nn.Module()).keys()


class Portrait(NamedTuple):
    """A module: its class, its settings, the names of its own tensors, and what it holds; None where that may be any.

    Its tensors themselves are read at every call.
    """

    kind: type
    settings: tuple[tuple[str, object], ...]
    tensors: tuple[str, ...]
    children: tuple[tuple[str, Portrait | None], ...]


def portrait(module: nn.Module, free: Collection[str] = (), prefix: str = "") -> Portrait:
    """Of a module as it is.

    Args:
        module: any.
        free: names of parts that may be exchanged.
        prefix: of the module's name there.
    """
    held = {name: child for name, child in module._modules.items() if child is not None}
    return Portrait(
        type(module),
        tuple(
            (name, value)
            for name, value in vars(module).items()
            if name not in _NOT_SETTINGS and not name.startswith("_") and type(value) in _PLAIN
        ),
        _tensors(module),
        tuple(
            (name, None if prefix + name in free else portrait(child, free, f"{prefix}{name}."))
            for name, child in held.items()
        ),
    )


def difference(module: nn.Module, seen: Portrait, name: str, kind: type | None = None) -> str | None:
    """How a module looks otherwise than it did, or None.

    Args:
        module: what is there now.
        seen: what was.
        name: of the module, for the answer.
        kind: that it is to be of, where it stands in for the one that was seen; its own hooks do not matter then.
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
    found = [name for name, tensor in module._parameters.items() if tensor is not None]
    if module._buffers:
        found += [name for name, tensor in module._buffers.items() if tensor is not None]
    return tuple(found)
