"""One family and a module of it: what every check of the family works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ..patching import Family
from ..primitives import ExDAConfig
from .held import Holder, seeded, trained

PLAIN = ExDAConfig(tokens=0, value="none")
CONFIGS = (
    ExDAConfig(),
    ExDAConfig(tokens=2, value="none", scale="mean", stride=1),
    ExDAConfig(tokens=0, value_position="after"),
    ExDAConfig(tokens="channels", reinject="channelwise", value="gelu", init="paper"),
)
"""All that an attention does with tokens and values, in few configurations."""
TOKENLESS = (
    ExDAConfig(tokens=0),
    ExDAConfig(tokens=0, value_position="after"),
    ExDAConfig(tokens=0, value="gelu", init="paper"),
)
"""The same of one that takes no tokens."""

SIZE = 2, 9, 7
SIZES = (SIZE, (1, 1, 5), (1, 1, 1))
"""B, H, W."""

Call = tuple[Tensor | None, ...]
"""Maps (B, C, H, W), and what the attention takes after them."""


@dataclass(frozen=True)
class Case:
    """One family and a module of it.

    Attributes:
        family: under test.
        make_module: returns a module that it recognises.
        sorts: whether the attention sorts pixels by their values.
    """

    family: Family
    make_module: Callable[[], nn.Module]
    sorts: bool

    def held(self, seed: int = 0) -> Holder:
        """A network around a module, in eval mode; other weights for another seed."""
        return Holder(seeded(self.make_module, seed), self.family).eval()

    def patched(self, config: ExDAConfig) -> Holder:
        """In float64, with values as after a training."""
        model = self.held().double()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.patched(config)
        trained(model)
        return model

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """Which attribute of the module plays which part."""
        return self._plain.ours.host_parts

    @cached_property
    def dim(self) -> int:
        """C."""
        return self._plain.ours.dim

    @cached_property
    def _plain(self) -> Holder:
        model = self.held()
        model.patched(PLAIN)
        return model

    @property
    def configs(self) -> tuple[ExDAConfig, ...]:
        """To check the attention with."""
        return CONFIGS if self.family.replacement.TAKES_TOKENS else TOKENLESS

    @cached_property
    def sizes(self) -> tuple[tuple[int, int, int], ...]:
        """B, H, W to check the attention at, the first of them wherever one will do."""
        only = self.family.only_size(self.held().attention, self.parts)
        return SIZES if only is None else ((2, *only), (1, *only))

    def calls(self, size: Sequence[int], dtype: torch.dtype = torch.float64) -> list[Call]:
        """All ways to call a ``Holder`` with normal maps of B, H, W; the same numbers in every dtype."""
        generator = torch.Generator().manual_seed(1)
        batch, height, width = size
        shape = (batch, self.dim, height, width)
        maps = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(self.family.inputs)]
        further = self.family.further(self.held().attention, self.parts, maps[0], generator)
        return [tuple(_converted(each, dtype) for each in (*maps, *more)) for more in further]

    def call(self, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float64) -> Call:
        """The first of these ways, by default at the first size."""
        return self.calls(size or self.sizes[0], dtype)[0]


def _converted(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return x.to(dtype) if x is not None and x.is_floating_point() else x
