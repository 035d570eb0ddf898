"""Applies a restoration network to an image of any size, whole or in tiles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ... import memory as process_memory
from ...errors import ConfigError, ImageError
from ...patching.backbones import MULTIPLE, backbones_in, multiple_of
from ..shared.inference import inferring
from ..shared.live_bytes import LiveBytes
from ..shared.padding import pad, padded_side, round_up
from .memory import MemoryEstimate, available_bytes, largest_tile
from .tiles import Seam, axis, blend

OVERLAP = (128, 256)
"""Least and most pixels of the default overlap, a quarter of a tile. Tiles of 512 pixels left seams below the limit
with 128; tiles of 1568 did not with 128, but did with 256 (``benchmarks/restore_seam.py``)."""

SEAM_LIMIT = 0.5
"""Largest step, in 1/255, that the default overlap accepts: half of the smallest step of an 8-bit image."""

_PROBE, _LARGER_PROBE = 64, 256
"""Sides in pixels of the squares on which memory is measured. Fused blocks hold a whole map only if it is small, so the
smaller square overestimates what they take."""

_CHANNELS = (3, 1)
"""Channels of the images that are tried on a model, in this order."""

OnTile = Callable[[int, int], None]
"""Called after each tile with the number done and the number in all."""


@dataclass(frozen=True)
class Restored:
    """A restored image and how it was made.

    Attributes:
        image: the restored image in [0, 1], with shape, dtype and device of the one given.
        tile: side of the tiles in pixels; None if the image was restored whole.
        overlap: least pixels that neighbouring tiles share; None if restored whole.
        seam: how visible the tiles are; None if restored whole.
    """

    image: Tensor
    tile: int | None = None
    overlap: int | None = None
    seam: Seam | None = None


def restore(
    model: nn.Module,
    image: Tensor,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    memory: float | None = None,
    dtype: torch.dtype | None = None,
    multiple: int | None = None,
) -> Restored:
    """Restores an image of any size; the model is unchanged afterwards.

    The image is padded by reflection to a size that the backbone accepts. If it does not fit into memory whole, or is
    larger than a given ``tile``, it is cut into overlapping tiles that fade into each other. **The model then sees one
    tile at a time**: attention across channels, global tokens and other statistics over the image are those of the
    tile, so the result differs from that of the whole image, most where parts of the image differ from each other.

    Args:
        model: any network (1, C, H, W) -> (1, C, H, W) with C = 1 or 3, patched or not.
        image: (C, H, W) or (1, C, H, W), floating point in [0, 1], H and W at least 1, on any device. A grey image is
            repeated to three channels for a model of colour images, and the mean of the result is returned.
        tile: side in pixels, rounded up to the backbone's multiple; by default as large as memory allows.
        overlap: least pixels that tiles share, rounded up to the multiple, at most half a tile. By default a quarter of
            a tile, at least 128 (or half a tile) and at most 256; if the seam is then not below 0.5/255, the image is
            restored again with twice the overlap, up to half a tile.
        memory: GiB that the process may hold on the model's device; by default most of what is free.
        dtype: ``torch.float16`` or ``torch.bfloat16`` to compute in half precision (autocast).
        multiple: what height and width have to be divisible by; by default what is known of the backbone, or 8.

    Returns:
        The image, with shape, dtype and device of the one given, clipped to [0, 1], and the measured seam.

    Raises:
        ConfigError: for a tile, an overlap or a dtype that is not allowed.
        ImageError: for an image that the model does not take, a model that does not restore images, too little memory,
            and a result that is not finite.

    Examples:
        >>> import torch, exda_primitives as exda
        >>> from exda_primitives.workbench.restoration import restore
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> restored = restore(model, torch.rand(3, 150, 201), tile=96, overlap=32)
        >>> restored.image.shape, restored.tile
        (torch.Size([3, 150, 201]), 96)
    """
    restorer = Restorer(model, tile=tile, overlap=overlap, memory=memory, dtype=dtype, multiple=multiple)
    return restorer(image)


class Restorer:
    """``restore`` for many images: examines the model once.

    Attributes:
        channels: channels of the model's images, 3 or 1.
        multiple: what height and width of its input have to be divisible by.
        need: upper bound of the memory that it takes.
        sorts: whether it sorts pixels, so that rounding and tiles change its result more than that of other models.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        memory: float | None = None,
        dtype: torch.dtype | None = None,
        multiple: int | None = None,
    ) -> None:
        self.model, self.memory = model, memory
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.device, self.own_dtype = parameter.device, parameter.dtype
        self.autocast_dtype = None if dtype in (None, self.own_dtype) else dtype
        if self.autocast_dtype not in (None, torch.float16, torch.bfloat16):
            raise ConfigError(f"dtype must be torch.float16 or torch.bfloat16 (or None), got {dtype}.")
        backbones = backbones_in(model)
        self.multiple = multiple or multiple_of(backbones) or MULTIPLE
        self.sorts = any(each.sorts for each in backbones.values())
        self.tile, self.overlap = _checked(tile, overlap, self.multiple)
        self.channels, self.need = self._probe()
        self._is_need_exact = False

    def __call__(self, image: Tensor, on_tile: OnTile = lambda done, total: None) -> Restored:
        """Restores one image, see ``restore``; ``on_tile`` is called after each tile."""
        if image.ndim not in (3, 4) or (image.ndim == 4 and image.shape[0] != 1) or not image.is_floating_point():
            raise ImageError(
                f"expected a float image (C, H, W) or (1, C, H, W), got {tuple(image.shape)} of {image.dtype}; call "
                "once for each image of a batch."
            )
        if 0 in image.shape:
            raise ImageError(f"expected an image with pixels, got {tuple(image.shape)}.")
        shape = image.shape
        dtype = image.dtype
        # At least float32: blending in half precision would round more coarsely than an image's own values.
        image = image.reshape(shape[-3:]).to(torch.promote_types(dtype, torch.float32))
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
        pixels = restored.image.mean(0, keepdim=True) if grey else restored.image
        return Restored(pixels.reshape(shape).to(dtype), restored.tile, restored.overlap, restored.seam)

    def _restored(self, image: Tensor, on_tile: OnTile) -> Restored:
        height, width = image.shape[-2:]
        padded = pad(image, self.multiple)
        down, right = padded.shape[-2:]
        tile = self.tile
        if tile is None:
            tile = self._largest_tile(down, right)
        with inferring(self.model):
            if tile is None or max(down, right) <= tile:
                whole = self._run(padded)
                on_tile(1, 1)
                return Restored(whole[:, :height, :width])
            overlap, half = self._overlap_of(tile), self._half_of(tile)
            while True:
                blended, seam = self._blended(padded, tile, overlap, on_tile)
                # An overlap that was asked for is kept; the seam is reported either way.
                if self.overlap or overlap == half or seam.largest < SEAM_LIMIT:
                    return Restored(blended[:, :height, :width], tile, overlap, seam)
                overlap = min(2 * overlap, half)

    def _largest_tile(self, height: int, width: int) -> int | None:
        """Returns the side of the tiles for a padded image, or None if it fits whole."""
        free = available_bytes(self.device, self.memory)
        # Measures once more, on the larger square, if that fits and could avoid tiles.
        larger = self.need.of(_LARGER_PROBE, _LARGER_PROBE, None)
        if not self._is_need_exact and larger <= free < self.need.of(height, width, None):
            self.need, self._is_need_exact = self._measured(self.channels, _LARGER_PROBE)[1], True
        return largest_tile(self.need, height, width, self.multiple, self._overlap_of, free)

    def _overlap_of(self, tile: int) -> int:
        """Returns the overlap that was asked for, or the default, but at most half a tile."""
        least, most = OVERLAP
        wanted = self.overlap or round_up(min(max(tile // 4, least), most), self.multiple)
        return min(wanted, self._half_of(tile))

    def _half_of(self, tile: int) -> int:
        return tile // 2 // self.multiple * self.multiple

    def _blended(self, image: Tensor, tile: int, overlap: int, on_tile: OnTile) -> tuple[Tensor, Seam]:
        rows, columns = (axis(side, tile, overlap) for side in image.shape[-2:])
        total, done = len(rows.starts) * len(columns.starts), 0

        def tile_at(y: int, x: int) -> Tensor:
            nonlocal done
            restored = self._run(image[:, y : y + rows.tile, x : x + columns.tile])
            done += 1
            on_tile(done, total)
            return restored

        return blend(tile_at, rows, columns)

    def _run(self, image: Tensor) -> Tensor:
        """Restores a padded image (C, H, W); returns it in [0, 1], in the image's dtype and on its device."""
        shown = image.expand(self.channels, -1, -1)[None]
        restored = self._forward(shown.to(self.device, self.own_dtype))[0]
        if not bool(restored.isfinite().all()):
            dtype = self.autocast_dtype or self.own_dtype
            half = dtype in (torch.float16, torch.bfloat16)
            advice = f"{dtype} overflowed, restore in full precision" if half else "are its weights damaged?"
            raise ImageError(f"the model's output holds NaN or infinity: {advice}.")
        return restored.to(image.device, image.dtype).clamp(0, 1)

    def _forward(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.autocast_dtype) if self.autocast_dtype else nullcontext():
            restored: Tensor = self.model(batch)
        return restored

    def _probe(self) -> tuple[int, MemoryEstimate]:
        """Returns how many channels the model takes, found by trying, and the memory that a forward pass takes."""
        errors = []
        for channels in _CHANNELS:
            try:
                made, need = self._measured(channels, _PROBE)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
                continue
            given = (1, channels, *[round_up(_PROBE, self.multiple)] * 2)
            if made != given:
                raise ImageError(f"the model makes {made} of an image {given}, expected an image of the same shape.")
            return channels, need
        raise ImageError(f"the model takes neither colour nor grey images{_taken(self.model)} ({errors[0]}).")

    def _measured(self, channels: int, side: int) -> tuple[object, MemoryEstimate]:
        """Runs the model on a black square; returns the shape of its output (or the type) and the memory it takes."""
        side = round_up(side, self.multiple)
        image = torch.zeros(1, channels, side, side, device=self.device, dtype=self.own_dtype)
        with inferring(self.model), _uncompiled(), LiveBytes() as live:
            restored = self._forward(image)
        made = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
        return made, MemoryEstimate.measured(live, side**2, channels, self.autocast_dtype or self.own_dtype)


def _uncompiled() -> AbstractContextManager[object]:
    """Switches compilation off, as compiled code has no single operations whose tensors could be counted."""
    # Importing torch._dynamo takes seconds; if it is not imported, nothing is compiled.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _taken(model: nn.Module) -> str:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels in _CHANNELS:
        return ""
    kinds = "networks for dual-pixel images, raw data or images with prompts (DocRes)"
    return f" but {first.in_channels} channels, as {kinds} do"


def _named(channels: int) -> str:
    return "grey images" if channels == 1 else "colour images"


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
