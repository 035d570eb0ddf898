"""Networks that can be built by name, and told from the shapes of a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Any

from torch import nn

from ..primitives.description import Description


class ArchitectureMismatch(Exception):  # noqa: N818
    """A state dict is not one of the network that was asked; the message says what is missing."""


class StateShapes:
    """The shapes of a state dict, asked for what tells a network's constructor arguments.

    Args:
        shapes: key -> shape, without any wrapper's prefix and without what ExDA added.
        attentions: name -> configuration of the ExDA attentions, by what the state dict says of them.
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
        """The length of one axis of the tensor called ``key``.

        Raises:
            ArchitectureMismatch: if there is no such tensor or no such axis.
        """
        self.require(key)
        shape = self.shapes[key]
        if axis >= len(shape):
            raise ArchitectureMismatch(f"{key} has shape {shape}")
        return shape[axis]

    def depth(self, prefix: str) -> int:
        """How many children called ``{prefix}.0``, ``{prefix}.1``, ... there are."""
        numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in self.shapes if key.startswith(f"{prefix}.")}
        return next(count for count in range(len(numbers) + 1) if str(count) not in numbers)


def expansion_factor(widths: Sequence[tuple[int, int]], likely: Sequence[float] = (2.66, 2.667, 2.0)) -> float:
    """The factor f with ``int(dim * f) == hidden`` for every (dim, hidden): a likely one, else the shortest to write.

    Raises:
        ArchitectureMismatch: if no factor gives all of them.
    """
    smallest = max((hidden / dim for dim, hidden in widths if dim), default=0.0)
    # The shortest that is not smaller, and the next: a product that is whole on paper may be rounded down.
    written = ((ceil(smallest * 10**digits) + more) / 10**digits for digits in range(8) for more in (0, 1))
    for factor in (*likely, *written):
        if all(int(dim * factor) == hidden for dim, hidden in widths):
            return factor
    raise ArchitectureMismatch(f"no factor gives the hidden widths {[hidden for _, hidden in widths]}")


@dataclass(frozen=True)
class Architecture:
    """A network that ``exda_primitives.models.create`` builds and tells from a checkpoint.

    Attributes:
        name: unique, lower case.
        build: its class.
        infer: constructor arguments from the shapes of a state dict; raises ``ArchitectureMismatch`` where they
            cannot be those of this network. It may be generous: what it says is built on the meta device, and has to
            have the state dict's very keys and shapes.
        published: name -> constructor arguments of the configurations that have a name. Those of ``name`` itself are
            the constructor's own unless they are here.
    """

    name: str
    build: Callable[..., nn.Module]
    infer: Callable[[StateShapes], Mapping[str, Any]]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
