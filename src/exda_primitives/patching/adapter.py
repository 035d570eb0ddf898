"""The two kinds of adapters: a family (an attention and its replacement) and a backbone (a network and its stages)."""

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
    """A module looks like a family's attention but is not one.

    Attributes:
        reason: the rule that it breaks, for the user.
        rules: how many rules it passed before that; of several families, the one with the most names the near miss.
    """

    def __init__(self, reason: str, rules: int) -> None:
        super().__init__(reason)
        self.reason, self.rules = reason, rules


class Family(ABC):
    """One kind of attention: how its parts are found in a module, and the ExDA module that replaces it.

    A module that passes ``candidates`` is then probed: with random weights, it has to return what
    ``replacement`` without primitives returns. So these rules may be generous; the probe is strict.
    """

    name: ClassVar[str]
    """Unique name in lower case; the argument ``families`` takes it."""
    replacement: ClassVar[type[ExDAModule]]
    """The ExDA attention. ``candidates`` finds its ``PARTS``, except ``OPTIONAL`` ones that the host lacks."""
    inputs: ClassVar[int] = 1
    """Number of maps that its forward takes, as (B, C, H, W) or in the layout that ``make_inputs`` gives them."""
    extra_inputs: ClassVar[int] = 0
    """Number of arguments that its forward takes after the maps; ``extra_arguments`` makes them."""
    source: ClassVar[int] = -1
    """Index of the map that k, v and the tokens come from."""
    extension: ClassVar[bool] = False
    """Whether it is looked for only where ``families=`` names it: an attention that the paper does not cover."""
    parent_hook: ClassVar[type[ParentHook] | None] = None
    """Hook for a replacement that needs what only its parent's call knows, None if it needs nothing: ``patch`` puts one
    on every module that holds such a replacement, ``unpatch`` removes it."""

    @abstractmethod
    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns assignments of ``replacement.PARTS`` to attributes of ``module``, the likeliest first.

        Empty if the module does not even look like this attention.

        Raises:
            Mismatch: for a module that looks like this attention but breaks a rule; the user is told which.
        """

    def make_inputs(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Converts ``inputs`` maps (B, C, H, W) to the layout that the attention's forward takes and returns.

        By default they stay as they are. A family that overrides this has to undo it in ``to_map``.
        """
        return maps

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Converts an input or the output of the attention to a map: undoes ``make_inputs``.

        Args:
            x: an input or the output of the attention; by default a map already.
            size: (H, W), if known. Without it, a layout that does not tell it, such as tokens, becomes one column.

        Returns:
            (B, C, H, W), or (B, C, H*W, 1) if the size is unknown.

        Raises:
            InputError: if ``x`` has not as many dimensions as the attention's inputs.
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
        """Number of maps (B, C, H, W) that an attention must read and write, however it is fused: the bench's floor.

        By default each input once, the values' input once more (the weights are known only after all pixels have been
        read), and the output.
        """
        return self.inputs + 2

    def extra_inputs_of(self, attention: nn.Module) -> int:
        """How many arguments the forward of this attention takes after the maps; by default ``extra_inputs``."""
        return self.extra_inputs

    def extra_arguments(
        self, attention: nn.Module, parts: Mapping[str, str], x: Tensor, generator: torch.Generator
    ) -> Sequence[Sequence[Tensor | None]]:
        """Returns the arguments after the maps, once for each way to call the attention; for probe and verification.

        Args:
            attention: the host.
            parts: its parts, as ``candidates`` found them.
            x: the first map (B, C, H, W).
            generator: source of random numbers.
        """
        return [()]

    def forward_kwargs(self, height: int, width: int) -> Mapping[str, Any]:
        """Returns keywords for the replacement's forward, in place of what a ``parent_hook`` would pass to it.

        Args:
            height: H of the maps.
            width: W of the maps.
        """
        return {}


class TokenFamily(Family):
    """A family whose attention takes and returns tokens (B, H*W, C), pixels row by row."""

    def make_inputs(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Maps (B, C, H, W) as tokens (B, H*W, C)."""
        return [x.flatten(2).transpose(1, 2).contiguous() for x in maps]

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, H*W, C) as a map (B, C, H, W)."""
        if x.ndim != 3:
            raise InputError(f"the family {self.name!r}: expected tokens (B, H*W, C), got {tuple(x.shape)}.")
        return to_map(x, size or (x.shape[1], 1))


class Stage(NamedTuple):
    """Modules whose name begins with ``prefix`` (a pattern) are in ``stage``, at 1/``downscale`` of the image size."""

    prefix: str
    stage: str
    downscale: int


@dataclass(frozen=True)
class Backbone:
    """A network that is recognised by the names of its children.

    Attributes:
        name: unique name in lower case.
        children: names of parts that it must have: direct children or, if another network has the same, parts further
            inside (``latent.0.spatial_attn``, ``stages.*.xca``). If several backbones fit, the one with the most
            required names is taken.
        stages: stages of its attentions; the first that fits a name counts.
        multiple_of: what an image's height and width must be divisible by.
        sorts: whether it sorts pixels by value, so that rounding and cropping change its output more than others'.
        without: names of direct children that it must not have; with one of them it is part of another network.
    """

    name: str
    children: frozenset[str]
    stages: tuple[Stage, ...]
    multiple_of: int
    sorts: bool = False
    without: frozenset[str] = frozenset()

    def fits(self, module: nn.Module) -> bool:
        """Whether ``module`` has all of ``children`` and none of ``without``."""
        # Direct children first: a quick look-up that rules out nearly all modules before the walk in ``_has``.
        direct = module._modules
        if any(name in direct for name in self.without):
            return False
        return all(name.partition(".")[0] in direct for name in self.children) and all(
            _has(module, name) for name in self.children
        )

    def stage_of(self, name: str) -> Stage | None:
        """Returns the stage of the module ``name``, a name relative to the backbone; None if it is in none."""
        return next((stage for stage in self.stages if fnmatchcase(name, f"{stage.prefix}.*")), None)


def _has(module: nn.Module, name: str) -> bool:
    if "*" in name:
        return any(fnmatchcase(part, name) for part, _ in module.named_modules())
    try:
        module.get_submodule(name)
    except (AttributeError, RuntimeError):
        # A scripted module raises RuntimeError.
        return False
    return True
