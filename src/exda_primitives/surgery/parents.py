"""Hooks on a parent that pass to an attention what only the parent's call knows, such as (H, W) of its tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import nn

from .replacement import ReplacementModule


class ParentHook(ABC):
    """Hooks around every call of a module that holds a replacement, see ``Family.parent_hook``.

    The hook finds the attention, wrapped or not, by its name in the module that it is called with. So it refers to no
    module: in copies of a model and in DataParallel's replicas it talks to their own attention. A subclass has to be
    importable by name, for pickle, and simple enough for ``torch.compile`` to trace.

    Args:
        parent: the module that holds the replacement.
        attention: the attribute that holds it.
    """

    def __init__(self, parent: nn.Module, attention: str) -> None:
        self.attention = attention
        # Names of the arguments of the parent's forward, in order.
        self._order = tuple(signature(parent.forward).parameters)

    def __call__(self, parent: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Forward pre-hook (``with_kwargs=True``): passes the arguments on, and changes none of them."""
        # The keywords of a call may be in any order: sort them as the signature has them.
        ordered = (*arguments, *[keywords[name] for name in self._order if name in keywords])
        for attention in self._attentions(parent):
            self.before_call(attention, ordered)

    def after(self, parent: nn.Module, *_: Any) -> None:
        """Forward hook (``always_call=True``): also runs if the parent's call raised."""
        for attention in self._attentions(parent):
            self.after_call(attention)

    @abstractmethod
    def before_call(self, attention: Any, arguments: tuple[Any, ...]) -> None:
        """Passes to ``attention`` what it needs of the parent's ``arguments``, given in the order of its signature."""

    @abstractmethod
    def after_call(self, attention: Any) -> None:
        """Undoes ``before_call``: the parent's call has returned or raised.

        Also called without ``before_call``, if an earlier pre-hook raised.
        """

    def _attentions(self, parent: nn.Module) -> list[ReplacementModule]:
        # A wrapper that was put on since (torch.compile, checkpoint_wrapper) holds the attention inside.
        held = getattr(parent, self.attention, None)
        if isinstance(held, ReplacementModule):
            return [held]
        inside = held.modules() if isinstance(held, nn.Module) else ()
        return [module for module in inside if isinstance(module, ReplacementModule)]


def set_hook(parent: nn.Module, attention: str, kind: type[ParentHook] | None) -> None:
    """Replaces the hooks of ``parent`` for this attention by hooks of ``kind``, or by none."""
    for name in HOOKS:
        for key, hook in list(vars(parent)[name].items()):
            # The pre-hook is the object itself, the forward hook its bound method ``after``.
            owner = getattr(hook, "__self__", hook)
            if isinstance(owner, ParentHook) and owner.attention == attention:
                for held in HOOKS:
                    vars(parent)[held].pop(key, None)
    if kind is not None:
        hook = kind(parent, attention)
        parent.register_forward_pre_hook(hook, with_kwargs=True)
        parent.register_forward_hook(hook.after, always_call=True)


HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_always_called",
)
"""The module's dictionaries that hold such hooks; a key belongs to one registration, in all of them."""
