"""Maps taken a strip of rows at a time: what lies between a step's input and output never exists as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

_BYTES = 8 << 20
"""Of a strip's widest map: small enough for a processor's cache, and large beside what a call costs."""


class Strip(NamedTuple):
    """Rows of one image, or several whole images.

    Attributes:
        images: of the batch.
        top: first row.
        bottom: row after the last one.
        height: of the images.
    """

    images: slice
    top: int
    bottom: int
    height: int

    def rows(self, reach: int = 0) -> slice:
        """Those of the strip and, within the image, so many above and below: what 3x3 convolutions of it read."""
        return slice(max(self.top - reach, 0), min(self.bottom + reach, self.height))

    def within(self, outer: int, inner: int = 0) -> slice:
        """Where the rows of the smaller reach are in those of the larger one."""
        above = self.rows(outer).start
        rows = self.rows(inner)
        return slice(rows.start - above, rows.stop - above)


def strips(x: Tensor, channels: int) -> Iterator[Strip]:
    """Of a map (B, C, H, W), for intermediate maps of so many channels."""
    batch, _, height, width = x.shape
    of_row = channels * width * x.element_size()
    images = max(_BYTES // (of_row * height), 1)
    rows = height if images > 1 else min(max(_BYTES // of_row, 1), height)
    # Of one size, but for the last: no strip of a row or two, most of which would be what surrounds it.
    rows = -(-height // -(-height // rows))
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield Strip(slice(first, first + images), top, min(top + rows, height), height)
