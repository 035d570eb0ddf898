"""Tiles: where they lie, how they fade into each other, and what step the fading adds between neighbouring pixels.

Along an axis, tile b takes over from tile a with a weight w that rises from 0 to 1 over their overlap, so that the
image is (1 - w) a + w b = a + w (b - a). Between pixel x and the next, that adds

    (w(x + 1) - w(x)) * (b - a)

to what the tiles themselves do (b - a is the mean of both pixels): the **seam**. It would be 0 if tiles agreed. They
do not: attention across channels, global tokens and every other statistic over an image see the tile alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

GREY_LEVELS = 255
"""Seams are given in steps of an 8-bit image."""


class Ramp(NamedTuple):
    """Where a tile takes over from the one before: pixels ``begin`` to ``end`` (exclusive) of the axis."""

    begin: int
    end: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.end - self.begin


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        tile: their length, all the same.
        starts: their first pixels, ascending.
        ramps: one fewer; they never overlap each other, so that at most two tiles share a pixel.
    """

    tile: int
    starts: tuple[int, ...]
    ramps: tuple[Ramp, ...]


def axis(length: int, tile: int, overlap: int) -> Axis:
    """Tiles of equal length that cover ``length`` pixels; the last is moved inwards to end with the image.

    Args:
        length: pixels to cover.
        tile: of a tile; one is shorter where ``length`` is.
        overlap: least pixels that neighbours share, at most half a tile.

    Returns:
        Ramps are at least ``overlap`` wide; the last one is as wide as its neighbour leaves room for. Starts are
        multiples of whatever divides all three arguments.
    """
    if length <= tile:
        return Axis(length, (0,), ())
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return Axis(tile, tuple(starts), tuple(_ramps(starts, tile)))


def _ramps(starts: Sequence[int], tile: int) -> Iterator[Ramp]:
    end = 0
    for before, after in pairwise(starts):
        begin, end = max(after, end), before + tile
        yield Ramp(begin, end)


def weights(width: int) -> Tensor:
    """Raised cosine, (width,) float32: the share of the tile that fades in, at the pixels of a ramp.

    It begins with 0 and ends with 1, so that the outermost pixels of a tile, which saw padding, are not used.
    """
    phase = torch.linspace(0, 1, width, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(math.pi * phase)).float()


@dataclass(frozen=True)
class Seam:
    """How visible the tiles are, over all pixels and channels of the ramps, in 1/255.

    Attributes:
        largest: step that blending adds between two neighbouring pixels.
        percentile: step that 99.9 % stay below (to within 0.001, and at most 4).
        disagreement: mean |difference| of two tiles where one fades into the other.
    """

    largest: float
    percentile: float
    disagreement: float


class _Meter:
    """Sums up steps and differences without keeping them."""

    BINS, TOP, SHARE = 4000, 4.0, 0.999

    def __init__(self) -> None:
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)
        self.largest = self.total = 0.0
        self.pixels = 0

    def add_difference(self, difference: Tensor) -> None:
        self.total += float(difference.abs().sum(dtype=torch.float64))
        self.pixels += difference.numel()

    def add_steps(self, steps: Tensor) -> None:
        size = GREY_LEVELS * steps.abs()
        self.largest = max(self.largest, float(size.max()))
        self.counts += torch.histc(size.clamp(max=self.TOP), self.BINS, 0, self.TOP).double().cpu()

    def seam(self) -> Seam:
        reached = self.counts.cumsum(0) >= self.SHARE * self.counts.sum()
        percentile = (int(reached.int().argmax()) + 1) * self.TOP / self.BINS
        return Seam(self.largest, min(percentile, self.largest), GREY_LEVELS * self.total / max(self.pixels, 1))


def blend(tile_at: Callable[[int, int], Tensor], rows: Axis, columns: Axis) -> tuple[Tensor, Seam]:
    """Puts tiles together row by row; besides the result, one row of tiles is held.

    Args:
        tile_at: gives the tile (C, rows.tile, columns.tile) with this first row and column; asked once for each,
            in reading order.
        rows: tiles along the height.
        columns: tiles along the width.

    Returns:
        (C, H, W), and the seam.
    """
    meter = _Meter()
    whole: Tensor | None = None
    steps_above: Tensor | None = None
    for y, ramp, next_ramp in zip(rows.starts, (None, *rows.ramps), (*rows.ramps, None), strict=True):
        strip, steps = _strip(lambda x, y=y: tile_at(y, x), columns, meter)  # type: ignore[misc]
        if whole is None:
            whole = strip.new_empty(strip.shape[0], rows.starts[-1] + rows.tile, strip.shape[-1])
        down = _join(whole, strip, y, ramp, -2, meter)
        if down is not None:
            meter.add_steps(down)
        if steps is not None:
            # Where rows of tiles fade into each other, so do the steps between their columns.
            first = 0
            if ramp is not None and steps_above is not None:
                first = ramp.begin - y
                w = weights(ramp.width).to(steps)[:, None]
                steps[:, first : first + ramp.width].lerp_(steps_above[:, -ramp.width :], 1 - w)
            meter.add_steps(steps[:, first : next_ramp.begin - y if next_ramp else None])
        steps_above = steps
    assert whole is not None
    return whole, meter.seam()


def _strip(tile_at: Callable[[int], Tensor], columns: Axis, meter: _Meter) -> tuple[Tensor, Tensor | None]:
    """One row of tiles, (C, tile, W), and the steps between columns, at those of the ramps alone."""
    strip: Tensor | None = None
    steps = []
    for x, ramp in zip(columns.starts, (None, *columns.ramps), strict=True):
        tile = tile_at(x)
        if strip is None:
            strip = tile.new_empty(*tile.shape[:2], columns.starts[-1] + columns.tile)
        across = _join(strip, tile, x, ramp, -1, meter)
        if across is not None:
            steps.append(across)
    assert strip is not None
    return strip, torch.cat(steps, -1) if steps else None


def _join(into: Tensor, piece: Tensor, at: int, ramp: Ramp | None, dim: int, meter: _Meter) -> Tensor | None:
    """Lets ``piece``, which begins at ``at``, take over along ``dim``; the steps that this adds."""
    length = piece.shape[dim]
    if ramp is None:
        into.narrow(dim, at, length).copy_(piece)
        return None
    before = into.narrow(dim, ramp.begin, ramp.width)
    difference = piece.narrow(dim, ramp.begin - at, ramp.width) - before
    meter.add_difference(difference)
    w = weights(ramp.width).to(difference)
    steps = _steps(difference, w, dim)
    before.addcmul_(difference, w if dim == -1 else w[:, None])
    rest = at + length - ramp.end
    into.narrow(dim, ramp.end, rest).copy_(piece.narrow(dim, length - rest, rest))
    return steps


def _steps(difference: Tensor, w: Tensor, dim: int) -> Tensor:
    """What blending adds between the pixels of a ramp, and between them and the pixel on either side."""
    rise = torch.diff(w, prepend=w.new_zeros(1), append=w.new_ones(1))
    width = difference.shape[dim]
    # Outside the ramp the weight does not change, and neither tile needs to reach there.
    left = torch.arange(-1, width, device=w.device).clamp(min=0)
    right = torch.arange(width + 1, device=w.device).clamp(max=width - 1)
    mean = (difference.index_select(dim, left) + difference.index_select(dim, right)) / 2
    return mean * (rise if dim == -1 else rise[:, None])
