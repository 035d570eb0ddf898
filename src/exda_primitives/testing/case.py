"""The family under test and a module that it recognises, from which every check makes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ..patching import Family
from ..primitives import ExDAConfig
from .common import MapWrapper, perturb_parameters, seeded

PLAIN = ExDAConfig(tokens=0, value="none")
"""Without primitives: the replacement computes the host's formula."""
CONFIGS = (
    ExDAConfig(),
    ExDAConfig(tokens=2, value="none", scale="mean", stride=1),
    ExDAConfig(tokens=0, value_position="after"),
    ExDAConfig(tokens="channels", reinject="channelwise", value="gelu", init="paper"),
)
"""Few configurations that together use every option. The last one has no identity start (``init="paper"``)."""
TOKENLESS = (
    ExDAConfig(tokens=0),
    ExDAConfig(tokens=0, value_position="after"),
    ExDAConfig(tokens=0, value="gelu", init="paper"),
)
"""The same for an attention that takes no tokens."""

SIZE = 2, 9, 7
SIZES = (SIZE, (1, 1, 5), (1, 1, 1))
"""(B, H, W): odd sides, one row, one pixel."""

Call = tuple[Tensor | None, ...]
"""Maps (B, C, H, W), and what the attention takes after them."""


@dataclass(frozen=True)
class Case:
    """The family under test and a module that it recognises.

    Attributes:
        family: the family under test.
        make_module: returns a module that it recognises.
        sorts: whether the attention sorts pixels by their values.
    """

    family: Family
    make_module: Callable[[], nn.Module]
    sorts: bool

    def wrapped(self, seed: int = 0) -> MapWrapper:
        """Returns a module in a ``MapWrapper``, in eval mode; each seed gives other weights."""
        return MapWrapper(seeded(self.make_module, seed), self.family).eval()

    def patched(self, config: ExDAConfig) -> MapWrapper:
        """Returns a patched network in float64, with parameters changed as by training."""
        model = self.wrapped().double()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.patched(config)
        perturb_parameters(model)
        return model

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """Name in ``PARTS`` -> attribute of the module."""
        return self._plain.ours.host_parts

    @cached_property
    def dim(self) -> int:
        """Channels C."""
        return self._plain.ours.dim

    @cached_property
    def _plain(self) -> MapWrapper:
        model = self.wrapped()
        model.patched(PLAIN)
        return model

    @property
    def configs(self) -> tuple[ExDAConfig, ...]:
        """The configurations to check the attention with."""
        return CONFIGS if self.family.replacement.TAKES_TOKENS else TOKENLESS

    @cached_property
    def sizes(self) -> tuple[tuple[int, int, int], ...]:
        """(B, H, W) to check the attention at; checks that need only one size take the first."""
        only = self.family.only_size(self.wrapped().attention, self.parts)
        return SIZES if only is None else ((2, *only), (1, *only))

    def calls(self, size: Sequence[int], dtype: torch.dtype = torch.float64) -> list[Call]:
        """Returns the arguments of every way to call a ``MapWrapper``: the same normal noise in every dtype."""
        generator = torch.Generator().manual_seed(1)
        batch, height, width = size
        shape = (batch, self.dim, height, width)
        maps = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(self.family.inputs)]
        ways = self.family.extra_arguments(self.wrapped().attention, self.parts, maps[0], generator)
        return [tuple(_converted(each, dtype) for each in (*maps, *more)) for more in ways]

    def call(self, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float64) -> Call:
        """Returns the arguments of the first way, by default at the first size."""
        return self.calls(size or self.sizes[0], dtype)[0]


def _converted(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return x.to(dtype) if x is not None and x.is_floating_point() else x
