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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.floating[Any]]
"""An image (C, H, W), or a batch of images (B, C, H, W)."""

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


def weights(width: int) -> NDArray[np.float32]:
    """Returns the weights of the tile that fades in, over the pixels of a ramp: a raised cosine, (width,) float32.

    It begins with 0 and ends with 1, so that the outermost pixels of a tile, next to the network's padding, are not
    used.
    """
    return (0.5 - 0.5 * np.cos(math.pi * np.linspace(0, 1, width))).astype(np.float32)


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
        self.counts = np.zeros(self.BINS, np.int64)
        self.largest = self.total = 0.0
        self.pixels = 0

    def add_difference(self, difference: Pixels) -> None:
        self.total += float(np.abs(difference).sum(dtype=np.float64))
        self.pixels += difference.size

    def add_steps(self, steps: Pixels) -> None:
        size = np.abs(steps)
        size *= GREY_LEVELS
        self.largest = max(self.largest, float(size.max()))
        np.minimum(size, self.TOP, out=size)
        self.counts += np.histogram(size, self.BINS, (0, self.TOP))[0]

    def seam(self) -> Seam:
        reached = self.counts.cumsum() >= self.SHARE * self.counts.sum()
        percentile = (int(reached.argmax()) + 1) * self.TOP / self.BINS
        return Seam(self.largest, min(percentile, self.largest), GREY_LEVELS * self.total / max(self.pixels, 1))


def blend(tile_at: Callable[[int, int], Pixels], rows: Axis, columns: Axis) -> tuple[Pixels, Seam]:
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
    whole: Pixels | None = None
    steps_above: Pixels | None = None
    for y, ramp, next_ramp in zip(rows.starts, (None, *rows.ramps), (*rows.ramps, None), strict=True):
        strip, steps = _strip(lambda x, y=y: tile_at(y, x), columns, meter)  # type: ignore[misc]
        if whole is None:
            whole = np.empty((len(strip), rows.starts[-1] + rows.tile, strip.shape[-1]), strip.dtype)
        down = _join(whole, strip, y, ramp, -2, meter)
        if down is not None:
            meter.add_steps(down)
        if steps is not None:
            # Where rows of tiles fade into each other, their steps between columns blend alike:
            # (1 - w) steps_above + w steps. Rows of the next ramp are counted with the next strip.
            first = 0
            if ramp is not None and steps_above is not None:
                first = ramp.begin - y
                fading = steps[:, first : first + ramp.width]
                fading -= steps_above[:, -ramp.width :]
                fading *= weights(ramp.width)[:, None]
                fading += steps_above[:, -ramp.width :]
            meter.add_steps(steps[:, first : next_ramp.begin - y if next_ramp else None])
        steps_above = steps
    assert whole is not None
    return whole, meter.seam()


def _strip(tile_at: Callable[[int], Pixels], columns: Axis, meter: _Meter) -> tuple[Pixels, Pixels | None]:
    """Blends one row of tiles; returns it, (C, tile, W), and the steps that this adds at the columns of the ramps."""
    strip: Pixels | None = None
    steps = []
    for x, ramp in zip(columns.starts, (None, *columns.ramps), strict=True):
        tile = tile_at(x)
        if strip is None:
            strip = np.empty((*tile.shape[:2], columns.starts[-1] + columns.tile), tile.dtype)
        across = _join(strip, tile, x, ramp, -1, meter)
        if across is not None:
            steps.append(across)
    assert strip is not None
    return strip, np.concatenate(steps, -1) if steps else None


def _join(into: Pixels, piece: Pixels, at: int, ramp: Ramp | None, dim: int, meter: _Meter) -> Pixels | None:
    """Writes ``piece``, which begins at ``at``, into ``into``, fading in over the ramp; returns the steps that adds."""
    end = at + piece.shape[dim]
    if ramp is None:
        _along(into, dim, at, end)[...] = piece
        return None
    before = _along(into, dim, ramp.begin, ramp.end)
    difference = _along(piece, dim, ramp.begin - at, ramp.end - at) - before
    meter.add_difference(difference)
    w = weights(ramp.width)
    steps = _steps(difference, w, dim)
    # a + w (b - a), in place.
    difference *= _as_column(w, dim)
    before += difference
    _along(into, dim, ramp.end, end)[...] = _along(piece, dim, ramp.end - at, end - at)
    return steps


def _steps(difference: Pixels, w: NDArray[np.float32], dim: int) -> Pixels:
    """Returns the steps (w(x + 1) - w(x)) (b - a) in a ramp and at its two borders: width + 1 along ``dim``."""
    width = difference.shape[dim]
    # b - a is the mean over both pixels of a pair. Outside the ramp one of the tiles may be missing: the difference at
    # the border is used for both.
    first, last = _along(difference, dim, 0, 1), _along(difference, dim, width - 1, width)
    pairs = _along(difference, dim, 0, width - 1) + _along(difference, dim, 1, width)
    pairs /= 2
    steps = np.concatenate([first, pairs, last], dim)
    # The weight is 0 before the ramp and 1 after it.
    steps *= _as_column(np.diff(w, prepend=np.float32(0), append=np.float32(1)), dim)
    return steps


def _along(x: Pixels, dim: int, begin: int, end: int) -> Pixels:
    """Returns rows (``dim`` = -2) or columns (-1) ``begin`` to ``end`` (exclusive), as a view."""
    return x[..., begin:end, :] if dim == -2 else x[..., begin:end]


def _as_column(w: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Shapes weights so that they multiply a map along rows (``dim`` = -2) or columns (-1)."""
    return w[:, None] if dim == -2 else w
