"""What an adapter is: a family (an attention and what replaces it) or a backbone (where its attentions sit)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..ops.layout import to_map
from ..primitives import ExDAModule
from ..surgery.parents import ParentHook


class Mismatch(Exception):  # noqa: N818
    """A module looks like a family's attention but is not; ``rules`` counts how many rules it passed before."""

    def __init__(self, reason: str, rules: int) -> None:
        super().__init__(reason)
        self.reason, self.rules = reason, rules


class Family(ABC):
    """One kind of attention: how its parts are found, and the ExDA module that computes it.

    A module that passes ``candidates`` is then probed: with random weights, it has to return what
    ``replacement`` without primitives returns. So a rule here may be generous; the probe is not.
    """

    name: ClassVar[str]
    """Unique, lower case; what ``families=`` takes."""
    replacement: ClassVar[type[ExDAModule]]
    """The ExDA attention; its ``PARTS`` are what ``candidates`` finds, but for ``OPTIONAL`` ones that are not there."""
    inputs: ClassVar[int] = 1
    """How many maps (B, C, H, W) its forward takes, or what ``arguments`` makes of so many."""
    further_inputs: ClassVar[int] = 0
    """How many arguments its forward takes after the maps: those that ``further`` makes."""
    source: ClassVar[int] = -1
    """Which of these maps k, v and the tokens come from: an index."""
    extension: ClassVar[bool] = False
    """Whether it is looked for only where ``families=`` names it: an attention that the paper does not speak of."""
    parent_hook: ClassVar[type[ParentHook] | None] = None
    """For a replacement that needs to know what only its parent's call says: ``patch`` puts such a hook on every module
    that holds one, ``unpatch`` takes it off."""

    @abstractmethod
    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Assignments of ``replacement.PARTS`` to attributes of ``module``, the likelier first; none if nothing alike.

        Raises:
            Mismatch: for a module that looks like this attention but breaks a rule: the user is told why.
        """

    def arguments(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the attention's forward takes in place of ``inputs`` maps (B, C, H, W); what it returns lies as these.

        A family that changes it says in ``to_map`` how to undo it.
        """
        return maps

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The map that an input or the output of the attention is: undoes ``arguments``.

        Args:
            x: what the attention takes or returns; by default a map already.
            size: (H, W), where it is known. Without, a layout that does not say it, such as tokens, gives one column.

        Returns:
            (B, C, H, W), or (B, C, H*W, 1) where nothing says the size.

        Raises:
            InputError: for another number of dimensions than the attention's inputs have.
        """
        if x.ndim != 4:
            raise InputError(f"the family {self.name!r}: expected a map (B, C, H, W), got {tuple(x.shape)}.")
        return x

    def only_size(self, attention: nn.Module, parts: Mapping[str, str]) -> tuple[int, int] | None:
        """(H, W) of the only maps that an attention takes, a window's; by default None: it takes any.

        Args:
            attention: the host, or what replaces it, with these ``parts``.
            parts: of ``candidates``.
        """
        return None

    @property
    def passes(self) -> int:
        """How many maps (B, C, H, W) an attention reads and writes at least, whatever is fused: for the bench's floor.

        By default each input once, that of the values once more (only when all pixels were seen the weights are known),
        and the output.
        """
        return self.inputs + 2

    def further_inputs_of(self, attention: nn.Module) -> int:
        """How many arguments the forward of this attention takes after the maps; by default ``further_inputs``."""
        return self.further_inputs

    def further(
        self, attention: nn.Module, parts: Mapping[str, str], x: Tensor, generator: torch.Generator
    ) -> Sequence[Sequence[Tensor | None]]:
        """What the attention's forward takes after the maps, once for every way to call it: for probe and verification.

        Args:
            attention: the host, with these ``parts``.
            parts: of ``candidates``.
            x: the first map (B, C, H, W).
            generator: of the random numbers.
        """
        return [()]

    def known_of(self, height: int, width: int) -> Mapping[str, Any]:
        """Keywords of the replacement's forward that say what a parent would have said of maps of that size."""
        return {}


class TokenFamily(Family):
    """A family whose attention takes and returns tokens (B, H*W, C), pixels row by row."""

    def arguments(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Maps (B, C, H, W) as tokens (B, H*W, C)."""
        return [x.flatten(2).transpose(1, 2).contiguous() for x in maps]

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, H*W, C) as a map (B, C, H, W)."""
        if x.ndim != 3:
            raise InputError(f"the family {self.name!r}: expected tokens (B, H*W, C), got {tuple(x.shape)}.")
        return to_map(x, size or (x.shape[1], 1))


class Stage(NamedTuple):
    """Modules whose name begins with ``prefix`` (a pattern) work in ``stage``, at 1/``downscale`` of the image."""

    prefix: str
    stage: str
    downscale: int


@dataclass(frozen=True)
class Backbone:
    """A network that is known by the names of its children.

    Attributes:
        name: unique, lower case.
        children: names that it must have, of direct children or, where these are another network's as well, of parts
            further inside (``latent.0.spatial_attn``, ``stages.*.xca``); of several backbones that fit, the one that
            asks for most is taken.
        stages: of its attentions, the first that fits counts.
        multiple_of: what height and width of an image must be divisible by.
        sorts: whether it sorts pixels by their values, so that rounding, and what of an image it is shown, change its
            output more than that of others.
        without: names of direct children that it must not have: with one of them it is part of another network.
    """

    name: str
    children: frozenset[str]
    stages: tuple[Stage, ...]
    multiple_of: int
    sorts: bool = False
    without: frozenset[str] = frozenset()

    def fits(self, module: nn.Module) -> bool:
        """Whether ``module`` has all the children, and none that it must be without."""
        # The direct children first: that is quick, and leaves next to nothing to look into.
        direct = module._modules
        if any(name in direct for name in self.without):
            return False
        return all(name.partition(".")[0] in direct for name in self.children) and all(
            _has(module, name) for name in self.children
        )

    def stage_of(self, name: str) -> Stage | None:
        """The stage of the module called ``name`` relative to the backbone."""
        return next((stage for stage in self.stages if fnmatchcase(name, f"{stage.prefix}.*")), None)


def _has(module: nn.Module, name: str) -> bool:
    if "*" in name:
        return any(fnmatchcase(part, name) for part, _ in module.named_modules())
    try:
        module.get_submodule(name)
    except (AttributeError, RuntimeError):
        # A scripted module raises the latter.
        return False
    return True
