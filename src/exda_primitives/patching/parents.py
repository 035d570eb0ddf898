"""What only the parent's call knows, handed down to an attention by a hook on the parent, and taken back with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import nn

from ..primitives import ExDAModule


class ParentHook(ABC):
    """A forward pre-hook on every module that directly holds a replacement: see :attr:`Family.parent_hook`.

    It finds the attention by its name in the module that it is called with, so that copies of a model have hooks of
    their own and replicas speak to their own attention. A subclass has to be importable by its name, for pickle, and is
    traced by ``torch.compile``: plain statements.

    Args:
        parent: the module that holds the replacement.
        attention: under which attribute.
    """

    def __init__(self, parent: nn.Module, attention: str) -> None:
        self.attention = attention
        self._order = tuple(signature(parent.forward).parameters)

    def __call__(self, parent: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """As ``register_forward_pre_hook(..., with_kwargs=True)`` calls it; changes none of the arguments."""
        attention = getattr(parent, self.attention, None)
        if isinstance(attention, ExDAModule):
            # A call may name its keywords in any order.
            self.tell(attention, (*arguments, *[keywords[name] for name in self._order if name in keywords]))

    @abstractmethod
    def tell(self, attention: Any, arguments: tuple[Any, ...]) -> None:
        """Hands down to ``attention`` what the parent's ``arguments``, in the order of its signature, say."""


def set_hook(parent: nn.Module, attention: str, kind: type[ParentHook] | None) -> None:
    """Gives ``parent`` a hook of ``kind`` for this attention, or none, in place of the one that it has."""
    for key, hook in list(parent._forward_pre_hooks.items()):
        if isinstance(hook, ParentHook) and hook.attention == attention:
            del parent._forward_pre_hooks[key]
            parent._forward_pre_hooks_with_kwargs.pop(key, None)
    if kind is not None:
        parent.register_forward_pre_hook(kind(parent, attention), with_kwargs=True)
