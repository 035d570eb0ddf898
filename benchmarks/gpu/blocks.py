"""Restormer's transformer blocks, one by one: plain and fused, patched and as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.models.blocks import NormType, TransformerBlock
from exda_primitives.workbench.bench.networks import move_away
from exda_primitives.workbench.bench.precision import Precision

_EXPANSION = 2.66
_SEED = 0


@dataclass(frozen=True)
class Block:
    """A block and the map that it is given.

    Attributes:
        name: in results.
        channels: of the map.
        heads: of the attention.
        height: of the map, in pixels.
        width: likewise.
        batch: maps at a time.
        patched: whether its attention has the primitives.
        bias: whether its convolutions have one.
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
        """(B, C, H, W)."""
        return self.batch, self.channels, self.height, self.width


@dataclass(frozen=True)
class Level:
    """Blocks of one width in Restormer's default configuration.

    Attributes:
        name: of encoder and decoder by depth; ``R`` are the last ones, refinement included, which have two maps'
            channels.
        channels: of their maps.
        heads: of their attentions.
        scale: by which their maps are smaller than the image.
        blocks: how many there are.
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
    """The blocks of a Restormer that is given an image of this size, one of each level."""
    for level in (*LEVELS, LAST):
        size = height // level.scale, width // level.scale
        yield Block(level.name, level.channels, level.heads, *size, batch=batch, patched=patched)


def strips() -> list[Block]:
    """A block of each level on a strip as wide as an image of 1024 pixels, and what is odd about sizes."""
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
    """The block by itself, on the CPU in float32, in eval mode; the same weights at every call."""
    # Patching and fusing take seconds, and maps of all sizes have the same block.
    return copy.deepcopy(_plain(block.channels, block.heads, block.patched, block.bias, block.norm))


def fused(block: Block) -> nn.Module:
    """``plain``, as fused kernels."""
    return copy.deepcopy(_fused(block.channels, block.heads, block.patched, block.bias, block.norm))


@cache
def _plain(channels: int, heads: int, patched: bool, bias: bool, norm: NormType) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = nn.Sequential(TransformerBlock(channels, heads, _EXPANSION, bias, norm))
        if patched:
            exda.patch(model)
            move_away(model)
    return model.eval()


@cache
def _fused(channels: int, heads: int, patched: bool, bias: bool, norm: NormType) -> nn.Module:
    model = copy.deepcopy(_plain(channels, heads, patched, bias, norm))
    exda.fuse(model)
    return model


def image(block: Block, precision: Precision) -> Tensor:
    """A map for the block: normal numbers that the number format has, in float64 on the CPU."""
    generator = torch.Generator().manual_seed(_SEED + 1)
    return torch.randn(block.shape, generator=generator, dtype=torch.float64).to(precision.dtype).double()
