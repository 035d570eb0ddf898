"""Places tiles, fades them into each other, and measures the step that fading adds between neighbouring pixels.

Along an axis, tile b takes over from tile a with a weight w that rises from 0 to 1 over their overlap, so that the
image is (1 - w) a + w b = a + w (b - a). Between pixels x and x + 1, that adds the step

    (w(x + 1) - w(x)) * (b - a), with b - a averaged over the two pixels,

to the steps within the tiles: the **seam**. It would be 0 if the tiles agreed. They do not: attention across channels,
global tokens and every other statistic over an image see one tile only.
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
"""Steps of an 8-bit image between 0 and 1, the unit of seams."""


class Ramp(NamedTuple):
    """The pixels of an axis, ``begin`` to ``end`` (exclusive), over which a tile takes over from the one before."""

    begin: int
    end: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.end - self.begin


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        tile: length of every tile, in pixels.
        starts: first pixel of each tile, ascending.
        ramps: one for each pair of neighbouring tiles; they do not overlap, so at most two tiles contribute to a pixel.
    """

    tile: int
    starts: tuple[int, ...]
    ramps: tuple[Ramp, ...]


def axis(length: int, tile: int, overlap: int) -> Axis:
    """Places tiles of equal length over ``length`` pixels; the last one is moved inwards to end with the image.

    Args:
        length: pixels to cover.
        tile: length of a tile; if ``length`` is not larger, there is a single tile of that length.
        overlap: least pixels that neighbours share, at most half a tile.

    Returns:
        The tiles. Ramps are at least ``overlap`` wide; the last one is as wide as the ramp before it leaves room for.
        Whatever divides all three arguments divides all starts.
    """
    if length <= tile:
        return Axis(length, (0,), ())
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return Axis(tile, tuple(starts), tuple(_ramps(starts, tile)))


def _ramps(starts: Sequence[int], tile: int) -> Iterator[Ramp]:
    end = 0
    # A ramp begins with its tile, or where the ramp before it ends, whichever is later.
    for before, after in pairwise(starts):
        begin, end = max(after, end), before + tile
        yield Ramp(begin, end)


def weights(width: int) -> Tensor:
    """Returns the weights of the tile that fades in, over the pixels of a ramp: a raised cosine, (width,) float32.

    It begins with 0 and ends with 1, so that the outermost pixels of a tile, next to the network's padding, are not
    used.
    """
    phase = torch.linspace(0, 1, width, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(math.pi * phase)).float()


@dataclass(frozen=True)
class Seam:
    """How visible the tiles are, over all pixels and channels of the ramps, in 1/255.

    Attributes:
        largest: largest step that blending adds between two neighbouring pixels.
        percentile: 99.9th percentile of these steps (to within 0.001, and at most 4).
        disagreement: mean |difference| of two tiles where one fades into the other.
    """

    largest: float
    percentile: float
    disagreement: float


class _Meter:
    """Accumulates the statistics of steps and differences, without keeping these."""

    # A histogram of 4000 bins up to 4/255 gives the percentile to within 0.001/255.
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
    """Blends tiles row by row; besides the result, one row of tiles is held.

    Args:
        tile_at: returns the tile (C, rows.tile, columns.tile) that begins at this row and column; called once for each
            tile, in reading order.
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
            # Where rows of tiles fade into each other, their steps between columns blend alike:
            # (1 - w) steps_above + w steps. Rows of the next ramp are counted with the next strip.
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
    """Blends one row of tiles; returns it, (C, tile, W), and the steps that this adds at the columns of the ramps."""
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
    """Writes ``piece``, which begins at ``at``, into ``into``, fading in over the ramp; returns the steps that adds."""
    length = piece.shape[dim]
    if ramp is None:
        into.narrow(dim, at, length).copy_(piece)
        return None
    before = into.narrow(dim, ramp.begin, ramp.width)
    difference = piece.narrow(dim, ramp.begin - at, ramp.width) - before
    meter.add_difference(difference)
    w = weights(ramp.width).to(difference)
    steps = _steps(difference, w, dim)
    # a + w (b - a), in place.
    before.addcmul_(difference, w if dim == -1 else w[:, None])
    rest = at + length - ramp.end
    into.narrow(dim, ramp.end, rest).copy_(piece.narrow(dim, length - rest, rest))
    return steps


def _steps(difference: Tensor, w: Tensor, dim: int) -> Tensor:
    """Returns the steps (w(x + 1) - w(x)) (b - a) in a ramp and at its two borders: width + 1 along ``dim``."""
    # The weight is 0 before the ramp and 1 after it.
    rise = torch.diff(w, prepend=w.new_zeros(1), append=w.new_ones(1))
    width = difference.shape[dim]
    # b - a is the mean over both pixels of a pair. Outside the ramp one of the tiles may be missing: the difference at
    # the border is used for both.
    left = torch.arange(-1, width, device=w.device).clamp(min=0)
    right = torch.arange(width + 1, device=w.device).clamp(max=width - 1)
    mean = (difference.index_select(dim, left) + difference.index_select(dim, right)) / 2
    return mean * (rise if dim == -1 else rise[:, None])
