"""Exchanges modules in their parents, all or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import WrappedModelError
from .parents import HOOKS, ParentHook, set_hook
from .replacement import ReplacementModule
from .wrappers import calls_its_only_part, is_compiled


class Replacement(NamedTuple):
    """The module to put under a name, and the class of the parent's hook that it needs (None if it needs no hook)."""

    module: nn.Module
    hook: type[ParentHook] | None


class _ModuleSlot(NamedTuple):
    """A slot of a model that a module is put into.

    Attributes:
        parent: the module that holds it.
        key: its name in ``parent._modules``.
        caller: the nearest module above that is not a mere wrapper: its call knows what the hook passes on.
        attribute: name of the module, or of the outermost wrapper around it, in ``caller``.
        replacement: what to put there.
    """

    parent: nn.Module
    key: str
    caller: nn.Module
    attribute: str
    replacement: Replacement


def swap(target: nn.Module, wanted: Mapping[str, Replacement]) -> None:
    """Puts modules under their full names in ``target``; on any error everything is restored.

    A wrapper of ``torch.compile`` compiles the new module from then on.
    """
    slots = [_slot_of(target, name, replacement) for name, replacement in wanted.items()]
    # For the way back: the old modules, and copies of the callers' dictionaries of hooks.
    before = [
        (slot.parent._modules[slot.key], {held: dict(vars(slot.caller)[held]) for held in HOOKS}) for slot in slots
    ]
    try:
        for slot in slots:
            _put(slot.parent, slot.key, slot.replacement.module)
            set_hook(slot.caller, slot.attribute, slot.replacement.hook)
    except BaseException:
        # KeyboardInterrupt, too, must not leave half a swap.
        for slot, (module, hooks) in zip(slots, before, strict=True):
            _put(slot.parent, slot.key, module)
            for held, earlier in hooks.items():
                _refill(vars(slot.caller)[held], earlier)
        raise


def give_back(target: nn.Module, ours: Mapping[str, ReplacementModule], verb: str) -> None:
    """Puts the hosts of replacement modules back, all or none.

    Args:
        target: the model.
        ours: full name in ``target`` -> replacement module.
        verb: what is done, for messages.

    Raises:
        WrappedModelError: if one cannot give its host back, or was scripted or traced.
    """
    # A scripted copy of a replacement is no ``ReplacementModule`` any more: its original class name tells.
    for name, module in target.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and module.original_name in _names(ReplacementModule):
            raise WrappedModelError(
                f"{name}: {module.original_name} is scripted or traced, and cannot be changed. Nothing was changed. "
                f"{verb.capitalize()} the Python module that it was made from."
            )
    # All are checked before the first is released, since ``release`` changes its host.
    for name, module in ours.items():
        if problem := module.release_problem():
            raise WrappedModelError(f"{name}: {problem}. Nothing was changed.")
    swap(target, {name: Replacement(module.release(), None) for name, module in ours.items()})


def _names(kind: type) -> set[str]:
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


def _slot_of(target: nn.Module, name: str, replacement: Replacement) -> _ModuleSlot:
    path, key = name.rpartition(".")[::2]
    parent = target.get_submodule(path)
    caller, attribute = parent, key
    while path and calls_its_only_part(caller):
        path, attribute = path.rpartition(".")[::2]
        caller = target.get_submodule(path)
    return _ModuleSlot(parent, key, caller, attribute, replacement)


def _put(parent: Any, key: str, module: nn.Module | None) -> None:
    held, parent._modules[key] = parent._modules[key], module
    if held is not module and is_compiled(parent):
        # The compiled wrapper keeps a compiled call of the old module.
        parent._initialize()


def _refill(held: dict[int, Any], earlier: Mapping[int, Any]) -> None:
    # In place: handles of hooks refer to this dictionary.
    held.clear()
    held.update(earlier)
