"""What only the parent's call knows, handed down to an attention by a hook on the parent, and taken back with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import nn

from .replacement import ReplacementModule


class ParentHook(ABC):
    """Hooks around every call of a module that directly holds a replacement: see ``Family.parent_hook``.

    It finds the attention by its name in the module that it is called with, wrapped or not, so that copies of a model
    have hooks of their own and replicas speak to their own attention. A subclass has to be importable by its name, for
    pickle, and is traced by ``torch.compile``: plain statements.

    Args:
        parent: the module that holds the replacement.
        attention: under which attribute.
    """

    def __init__(self, parent: nn.Module, attention: str) -> None:
        self.attention = attention
        self._order = tuple(signature(parent.forward).parameters)

    def __call__(self, parent: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """As ``register_forward_pre_hook(..., with_kwargs=True)`` calls it; changes none of the arguments."""
        # A call may name its keywords in any order.
        ordered = (*arguments, *[keywords[name] for name in self._order if name in keywords])
        for attention in self._attentions(parent):
            self.tell(attention, ordered)

    def after(self, parent: nn.Module, *_: Any) -> None:
        """As ``register_forward_hook(..., always_call=True)`` calls it."""
        for attention in self._attentions(parent):
            self.untell(attention)

    @abstractmethod
    def tell(self, attention: Any, arguments: tuple[Any, ...]) -> None:
        """Hands down to ``attention`` what the parent's ``arguments``, in the order of its signature, say."""

    @abstractmethod
    def untell(self, attention: Any) -> None:
        """Takes back what ``tell`` handed down: the parent's call is over, by an error perhaps.

        Also where ``tell`` was not called, since a hook before it raised.
        """

    def _attentions(self, parent: nn.Module) -> list[ReplacementModule]:
        held = getattr(parent, self.attention, None)
        if isinstance(held, ReplacementModule):
            return [held]
        inside = held.modules() if isinstance(held, nn.Module) else ()
        return [module for module in inside if isinstance(module, ReplacementModule)]


def set_hook(parent: nn.Module, attention: str, kind: type[ParentHook] | None) -> None:
    """Gives ``parent`` hooks of ``kind`` for this attention, or none, in place of those that it has."""
    for name in HOOKS:
        for key, hook in list(vars(parent)[name].items()):
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
"""The dictionaries that hold them; every key is one registration's, in whichever it is."""
