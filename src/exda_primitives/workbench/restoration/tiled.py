"""Restores images of any size, as NumPy arrays, by a network that is called on tiles. Nothing here needs PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ... import memory as process_memory
from ...errors import ConfigError, ImageError
from ..shared.padding import pad, padded_side, round_up
from .tiles import Pixels, Seam, axis, blend

OVERLAP = (128, 256)
"""Least and most pixels of the default overlap, a quarter of a tile. Tiles of 512 pixels left seams below the limit
with 128; tiles of 1568 did not with 128, but did with 256 (``benchmarks/restore_seam.py``)."""

SEAM_LIMIT = 0.5
"""Largest step, in 1/255, that the default overlap accepts: half of the smallest step of an 8-bit image."""

OnTile = Callable[[int, int], None]
"""Called after each tile with the number done and the number in all."""

Image = TypeVar("Image")


@dataclass(frozen=True)
class Restored(Generic[Image]):
    """A restored image and how it was made.

    Attributes:
        image: the restored image in [0, 1]: of a tensor one with its shape, dtype and device, of an array an array.
        tile: side of the tiles in pixels; None if the image was restored whole.
        overlap: least pixels that neighbouring tiles share; None if restored whole.
        seam: how visible the tiles are; None if restored whole.
    """

    image: Image
    tile: int | None = None
    overlap: int | None = None
    seam: Seam | None = None


class TiledRestorer(ABC):
    """Restores images by a network, whole or in overlapping tiles that fade into each other.

    Args:
        multiple: what height and width of the network's input have to be divisible by.
        tile: side of the tiles in pixels, rounded up to the multiple; None for ``largest_tile``'s choice.
        overlap: least pixels that tiles share, rounded up to the multiple; None for the default.
        sorts: whether it sorts pixels, so that rounding and tiles change its result more than that of other networks.

    Attributes:
        channels: channels of the network's images, 3 or 1; set by the subclass.

    Raises:
        ConfigError: for a tile or an overlap that is not allowed.
    """

    channels: int

    def __init__(self, multiple: int, tile: int | None, overlap: int | None, *, sorts: bool) -> None:
        self.multiple, self.sorts = multiple, sorts
        self.tile, self.overlap = _checked(tile, overlap, multiple)

    @abstractmethod
    def run(self, image: Pixels) -> Pixels:
        """Returns the network's output for a padded image (1 or ``channels``, H, W), in the image's dtype.

        An image of one channel is repeated to ``channels``. The image itself stays as it is.
        """

    def largest_tile(self, height: int, width: int) -> int | None:
        """Returns the side of the tiles for a padded image, or None to restore it whole."""
        return self.tile

    def running(self) -> AbstractContextManager[object]:
        """Returns a context in which ``run`` is called."""
        return nullcontext()

    def restore_array(self, image: Pixels, on_tile: OnTile = lambda done, total: None) -> Restored[Pixels]:
        """Restores an image (C, H, W) in [0, 1], float32 or float64, C = 1 or 3.

        Raises:
            ImageError: for an image that the network does not take, and a result that is not finite.
        """
        if 0 in image.shape:
            raise ImageError(f"expected an image with pixels, got {tuple(image.shape)}.")
        grey = self.channels == 3 and len(image) == 1
        if len(image) != self.channels and not grey:
            raise ImageError(
                f"the model takes {_named(self.channels)}, this one has {len(image)} channels."
                + (" Convert it to grey first." if self.channels == 1 else "")
            )
        try:
            restored = self._restored(image, on_tile)
        finally:
            # The next image may have another size, for which the memory kept so far may be of no use.
            process_memory.release()
        pixels = restored.image.mean(0, keepdims=True) if grey else restored.image
        return Restored(pixels, restored.tile, restored.overlap, restored.seam)

    def _restored(self, image: Pixels, on_tile: OnTile) -> Restored[Pixels]:
        height, width = image.shape[-2:]
        padded = pad(image, self.multiple)
        down, right = padded.shape[-2:]
        tile = self.largest_tile(down, right)
        with self.running():
            if tile is None or max(down, right) <= tile:
                whole = self._clipped(padded)
                on_tile(1, 1)
                return Restored(whole[:, :height, :width])
            overlap, half = self._overlap_of(tile), self._half_of(tile)
            while True:
                blended, seam = self._blended(padded, tile, overlap, on_tile)
                # An overlap that was asked for is kept; the seam is reported either way.
                if self.overlap or overlap == half or seam.largest < SEAM_LIMIT:
                    return Restored(blended[:, :height, :width], tile, overlap, seam)
                overlap = min(2 * overlap, half)

    def _overlap_of(self, tile: int) -> int:
        """Returns the overlap that was asked for, or the default, but at most half a tile."""
        least, most = OVERLAP
        wanted = self.overlap or round_up(min(max(tile // 4, least), most), self.multiple)
        return min(wanted, self._half_of(tile))

    def _half_of(self, tile: int) -> int:
        return tile // 2 // self.multiple * self.multiple

    def _blended(self, image: Pixels, tile: int, overlap: int, on_tile: OnTile) -> tuple[Pixels, Seam]:
        rows, columns = (axis(side, tile, overlap) for side in image.shape[-2:])
        total, done = len(rows.starts) * len(columns.starts), 0

        def tile_at(y: int, x: int) -> Pixels:
            nonlocal done
            restored = self._clipped(image[:, y : y + rows.tile, x : x + columns.tile])
            done += 1
            on_tile(done, total)
            return restored

        return blend(tile_at, rows, columns)

    def _clipped(self, image: Pixels) -> Pixels:
        restored = self.run(image)
        expected = (self.channels, *image.shape[1:])
        if restored.shape != expected:
            raise ImageError(
                f"the model makes {restored.shape} of an image {expected}, expected an image of the same shape; its "
                f"sides may have to be multiples of more than {self.multiple}."
            )
        if not np.isfinite(restored).all():
            raise ImageError(f"the model's output holds NaN or infinity: {self.advice()}.")
        return restored.clip(0, 1)

    def advice(self) -> str:
        """Returns what to do about an output that is not finite."""
        return "are its weights damaged?"


def _checked(tile: int | None, overlap: int | None, multiple: int) -> tuple[int | None, int | None]:
    """Checks tile and overlap, and returns both rounded up to the multiple."""
    if tile is not None:
        if tile < 1:
            raise ConfigError(f"tile must be at least 1 pixel, got {tile}.")
        # At least twice the multiple, so that half a tile, the largest overlap, is a multiple too.
        tile = max(round_up(tile, multiple), 2 * multiple, padded_side(1, multiple))
    if overlap is not None:
        if overlap < 1:
            raise ConfigError(f"overlap must be at least 1 pixel, got {overlap}: without one, the tiles show.")
        overlap = round_up(overlap, multiple)
        if tile is not None and 2 * overlap > tile:
            raise ConfigError(f"overlap must be at most half a tile, got {overlap} for tiles of {tile} pixels.")
    return tile, overlap


def _named(channels: int) -> str:
    return "grey images" if channels == 1 else "colour images"
