"""Cuts maps into strips of rows: the maps between a step's input and output only ever exist for one strip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

_BYTES = 8 << 20
"""Size of a strip's widest map: small enough for a processor's cache, large enough that a call's overhead is little."""


class Strip(NamedTuple):
    """Rows of one image, or several whole images.

    Attributes:
        images: which images of the batch.
        top: first row.
        bottom: row after the last one.
        height: rows of an image.
    """

    images: slice
    top: int
    bottom: int
    height: int

    def rows(self, reach: int = 0) -> slice:
        """Rows of the strip and ``reach`` more above and below, within the image: what 3x3 convolutions read."""
        return slice(max(self.top - reach, 0), min(self.bottom + reach, self.height))

    def rows_in(self, outer: int, inner: int = 0) -> slice:
        """Where ``rows(inner)`` are in a map that holds ``rows(outer)``."""
        above = self.rows(outer).start
        rows = self.rows(inner)
        return slice(rows.start - above, rows.stop - above)


def strips(x: Tensor, channels: int) -> Iterator[Strip]:
    """Yields the strips of a map (B, C, H, W) whose widest intermediate map has this many channels."""
    batch, _, height, width = x.shape
    of_row = channels * width * x.element_size()
    images = max(_BYTES // (of_row * height), 1)
    rows = height if images > 1 else min(max(_BYTES // of_row, 1), height)
    # The same number of rows in all strips but the last: a strip of a row or two would mostly read rows around it.
    rows = -(-height // -(-height // rows))
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield Strip(slice(first, first + images), top, min(top + rows, height), height)
