"""Single transformer blocks of Restormer: plain or fused, patched or unpatched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.models.blocks import NormType, TransformerBlock
from exda_primitives.workbench.bench.networks import randomise_new_parameters
from exda_primitives.workbench.bench.precision import Precision

_EXPANSION = 2.66
_SEED = 0


@dataclass(frozen=True)
class Block:
    """A block and the size of its input map.

    Attributes:
        name: its name in results.
        channels: channels of the map.
        heads: heads of the attention.
        height: height of the map in pixels.
        width: width of the map in pixels.
        batch: batch size.
        patched: whether its attention has the primitives.
        bias: whether its convolutions have a bias.
        norm: type of its norms.
    """

    name: str
    channels: int
    heads: int
    height: int
    width: int
    batch: int = 1
    patched: bool = True
    bias: bool = False
    norm: NormType = "WithBias"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (B, C, H, W) of the map."""
        return self.batch, self.channels, self.height, self.width


@dataclass(frozen=True)
class Level:
    """Blocks of one width in Restormer's default configuration.

    Attributes:
        name: ``L1`` to ``L4`` by depth; ``R`` are the blocks of the last decoder level and the refinement, whose maps
            have twice the channels of ``L1``.
        channels: channels of their maps.
        heads: heads of their attentions.
        scale: factor by which their maps are smaller than the image.
        blocks: number of blocks.
    """

    name: str
    channels: int
    heads: int
    scale: int
    blocks: int


LEVELS = (
    Level("L1", 48, 1, 1, 4),
    Level("L2", 96, 2, 2, 12),
    Level("L3", 192, 4, 4, 12),
    Level("L4", 384, 8, 8, 8),
)
LAST = Level("R", 96, 1, 1, 8)


def of_network(height: int, width: int, *, batch: int = 1, patched: bool = True) -> Iterator[Block]:
    """Yields one block of each level, with its map for an image of this size in pixels."""
    for level in (*LEVELS, LAST):
        size = height // level.scale, width // level.scale
        yield Block(level.name, level.channels, level.heads, *size, batch=batch, patched=patched)


def strips() -> list[Block]:
    """Returns the blocks to check: each level on a strip of 64 rows of an image 1024 pixels wide, and odd sizes."""
    widest = {level.name: 1024 // level.scale for level in (*LEVELS, LAST)}
    blocks = [Block(level.name, level.channels, level.heads, 64, widest[level.name]) for level in (*LEVELS, LAST)]
    as_they_are = [
        Block(f"{level.name}-unpatched", level.channels, level.heads, 64, 1024, patched=False)
        for level in (LEVELS[0], LAST)
    ]
    odd = [
        Block("L1-odd", 48, 1, 33, 61, batch=2),
        Block("R-odd", 96, 1, 7, 1030),
        Block("L3-odd", 192, 4, 9, 14, bias=True, norm="BiasFree"),
    ]
    return [*blocks, *as_they_are, *odd]


def plain(block: Block) -> nn.Module:
    """Returns the unfused block on the CPU in float32 and eval mode; the same weights at every call."""
    # Copies of cached blocks: patching and fusing take seconds, and the block does not depend on the map's size.
    return copy.deepcopy(_plain(block.channels, block.heads, block.patched, block.bias, block.norm))


def fused(block: Block) -> nn.Module:
    """Returns the block of ``plain``, fused."""
    return copy.deepcopy(_fused(block.channels, block.heads, block.patched, block.bias, block.norm))


@cache
def _plain(channels: int, heads: int, patched: bool, bias: bool, norm: NormType) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = nn.Sequential(TransformerBlock(channels, heads, _EXPANSION, bias, norm))
        if patched:
            exda.patch(model)
            randomise_new_parameters(model)
    return model.eval()


@cache
def _fused(channels: int, heads: int, patched: bool, bias: bool, norm: NormType) -> nn.Module:
    model = copy.deepcopy(_plain(channels, heads, patched, bias, norm))
    exda.fuse(model)
    return model


def image(block: Block, precision: Precision) -> Tensor:
    """Returns the block's input map: normal numbers rounded to the precision's format, in float64 on the CPU."""
    generator = torch.Generator().manual_seed(_SEED + 1)
    return torch.randn(block.shape, generator=generator, dtype=torch.float64).to(precision.dtype).double()
