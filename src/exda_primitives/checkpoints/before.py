"""Puts a model back as it was, when loading into it has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..surgery.wrappers import canonical
from .network import state_of
from .split import is_extra_state

_EMPTY: Mapping[str, Any] = {}


class TensorSlot(NamedTuple):
    """A tensor's slot in a model: its canonical full name, the module that holds it, its name there, the tensor."""

    full_name: str
    module: nn.Module
    name: str
    tensor: Tensor


def slots_of(model: nn.Module) -> Iterator[TensorSlot]:
    """Yields every slot of a parameter or buffer; a tensor that is shared has several."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        held: list[Mapping[str, Tensor | None]] = [module._parameters, module._buffers]
        for name, tensor in [(name, tensor) for each in held for name, tensor in each.items()]:
            if tensor is not None:
                yield TensorSlot(canonical(f"{prefix}.{name}" if prefix else name), module, name, tensor)


class Before:
    """What a model was before entries of its state dict were loaded.

    Attributes:
        extra_states: canonical name -> copy of the extra state, of those that will be loaded.
    """

    def __init__(self, model: nn.Module, names: Set[str]) -> None:
        """Records the model: every module's attributes, and copies of what will be overwritten.

        Args:
            model: the model.
            names: canonical names of the entries that will be loaded.
        """
        extra = {name for name in names if is_extra_state(name)}
        state = state_of(model) if extra else {}
        self.extra_states = {name: deepcopy(state[name]) for name in extra}
        self._attributes = [(module, dict(vars(module))) for module in model.modules()]
        # Parameters, buffers and children are in dictionaries; what a module computed from them may be.
        self._dictionaries = [
            # Most are empty; thousands of copies would wake the garbage collector.
            (each, dict(each) if each else _EMPTY)
            for _, held in self._attributes
            for each in held.values()
            if isinstance(each, dict)
        ]
        slots = {slot.full_name: slot.tensor for slot in slots_of(model)}
        # A state dict with names of its own does not say which tensors are behind them: then all are copied.
        every = not slots.keys() >= names - extra
        written = {id(each): each for name, each in slots.items() if (every or name in names) and not each.is_meta}
        self._values = [(tensor, tensor.detach().clone()) for tensor in written.values()]

    @torch.no_grad()
    def put_back(self) -> None:
        """Puts back all that was recorded, except extra states."""
        for dictionary, before in self._dictionaries:
            _refill(dictionary, before)
        for module, attributes in self._attributes:
            _refill(vars(module), attributes)
        for tensor, value in self._values:
            # One that cannot be written to is unchanged.
            with suppress(RuntimeError, NotImplementedError, TypeError):
                tensor.copy_(value)


def _refill(dictionary: dict[str, Any], before: Mapping[str, Any]) -> None:
    pairs = zip(dictionary.items(), before.items(), strict=False)
    if len(dictionary) != len(before) or not all(now[0] == then[0] and now[1] is then[1] for now, then in pairs):
        dictionary.clear()
        dictionary.update(before)
