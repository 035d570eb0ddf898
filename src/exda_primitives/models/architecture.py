"""Describes networks that can be built by name and recognised from the shapes of a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Any

from torch import nn

from ..primitives.description import Description


class ArchitectureMismatch(Exception):  # noqa: N818
    """Raised when a state dict is not one of this network; the message says what is missing or differs."""


class StateShapes:
    """The shapes of a state dict, from which an ``Architecture`` infers its constructor arguments.

    Args:
        shapes: key -> shape, without any wrapper's prefix and without what ExDA added.
        attentions: name of each ExDA attention -> its configuration, as recorded in the state dict.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], attentions: Mapping[str, Description] = MappingProxyType({})
    ) -> None:
        self.shapes, self.attentions = shapes, attentions

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def require(self, *keys: str) -> None:
        """Raises ArchitectureMismatch unless all of ``keys`` are there."""
        for key in keys:
            if key not in self.shapes:
                raise ArchitectureMismatch(f"no {key}")

    def size(self, key: str, axis: int = 0) -> int:
        """Returns the length of one axis of the tensor ``key``.

        Raises:
            ArchitectureMismatch: if there is no such tensor or no such axis.
        """
        self.require(key)
        shape = self.shapes[key]
        if axis >= len(shape):
            raise ArchitectureMismatch(f"{key} has shape {shape}")
        return shape[axis]

    def depth(self, prefix: str) -> int:
        """Returns how many children ``{prefix}.0``, ``{prefix}.1``, ... there are, up to the first missing number."""
        numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in self.shapes if key.startswith(f"{prefix}.")}
        return next(count for count in range(len(numbers) + 1) if str(count) not in numbers)


def expansion_factor(widths: Sequence[tuple[int, int]], likely: Sequence[float] = (2.66, 2.667, 2.0)) -> float:
    """Returns a factor f with ``int(dim * f) == hidden`` for every (dim, hidden).

    Several factors may fit; it returns the first that fits of ``likely``, else the one with the fewest decimals.

    Raises:
        ArchitectureMismatch: if no factor gives all of them.
    """
    smallest = max((hidden / dim for dim, hidden in widths if dim), default=0.0)
    # For each number of decimals the smallest factor that is large enough, and the next one: if dim * f is an integer
    # exactly, in floating point it may fall just below, and int() then rounds it down to one less.
    written = ((ceil(smallest * 10**digits) + more) / 10**digits for digits in range(8) for more in (0, 1))
    for factor in (*likely, *written):
        if all(int(dim * factor) == hidden for dim, hidden in widths):
            return factor
    raise ArchitectureMismatch(f"no factor gives the hidden widths {[hidden for _, hidden in widths]}")


@dataclass(frozen=True)
class Architecture:
    """A network that ``exda_primitives.models.create`` builds by name and recognises from a checkpoint.

    Attributes:
        name: unique name, in lower case.
        build: the network's class.
        infer: returns constructor arguments for the shapes of a state dict, or raises ``ArchitectureMismatch`` if they
            cannot be this network's. It may guess: the network is then built on the meta device, and its keys and
            shapes must equal the state dict's.
        published: name -> constructor arguments, for each published configuration. ``name`` itself stands for the
            constructor's defaults unless it is among them.
    """

    name: str
    build: Callable[..., nn.Module]
    infer: Callable[[StateShapes], Mapping[str, Any]]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
