"""Restores images of any size, as tensors, by a network in PyTorch."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ...errors import ConfigError, ImageError
from ...patching.backbones import MULTIPLE, backbones_in, multiple_of
from ..shared.inference import inferring
from ..shared.live_bytes import LiveBytes
from ..shared.padding import round_up
from .memory import MemoryEstimate, available_bytes, largest_tile
from .tiled import OnTile, Restored, TiledRestorer
from .tiles import Pixels

_PROBE, _LARGER_PROBE = 64, 256
"""Sides in pixels of the squares on which memory is measured. Fused blocks hold a whole map only if it is small, so the
smaller square overestimates what they take."""

_CHANNELS = (3, 1)
"""Channels of the images that are tried on a model, in this order."""


def restore(
    model: nn.Module,
    image: Tensor,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    memory: float | None = None,
    dtype: torch.dtype | None = None,
    multiple: int | None = None,
) -> Restored[Tensor]:
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


class Restorer(TiledRestorer):
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
        super().__init__(
            multiple or multiple_of(backbones) or MULTIPLE,
            tile,
            overlap,
            sorts=any(each.sorts for each in backbones.values()),
        )
        self.channels, self.need = self._probe()
        self._is_need_exact = False

    def __call__(self, image: Tensor, on_tile: OnTile = lambda done, total: None) -> Restored[Tensor]:
        """Restores one image, see ``restore``; ``on_tile`` is called after each tile."""
        if image.ndim not in (3, 4) or (image.ndim == 4 and image.shape[0] != 1) or not image.is_floating_point():
            raise ImageError(
                f"expected a float image (C, H, W) or (1, C, H, W), got {tuple(image.shape)} of {image.dtype}; call "
                "once for each image of a batch."
            )
        # At least float32: blending in half precision would round more coarsely than an image's own values.
        pixels = image.detach().cpu().reshape(image.shape[-3:]).to(torch.promote_types(image.dtype, torch.float32))
        restored = self.restore_array(pixels.numpy(), on_tile)
        made = torch.from_numpy(restored.image).reshape(image.shape).to(image.device, image.dtype)
        return Restored(made, restored.tile, restored.overlap, restored.seam)

    def run(self, image: Pixels) -> Pixels:
        """Returns the network's output for a padded image."""
        shown = torch.from_numpy(image).expand(self.channels, -1, -1)[None]
        # A copy: some networks write into their input, which here is the caller's image, or shares pixels with tiles.
        restored = self._forward(shown.to(self.device, self.own_dtype, copy=True))[0]
        made: Pixels = restored.cpu().to(shown.dtype).numpy()
        return made

    def running(self) -> AbstractContextManager[object]:
        """Returns a context in which the model is in eval mode, and nothing is recorded for gradients."""
        return inferring(self.model)

    def largest_tile(self, height: int, width: int) -> int | None:
        """Returns the side of the tiles that was asked for, or with which a padded image fits into memory."""
        if self.tile is not None:
            return self.tile
        free = available_bytes(self.device, self.memory)
        # Measures once more, on the larger square, if that fits and could avoid tiles.
        larger = self.need.of(_LARGER_PROBE, _LARGER_PROBE, None)
        if not self._is_need_exact and larger <= free < self.need.of(height, width, None):
            self.need, self._is_need_exact = self._measured(self.channels, _LARGER_PROBE)[1], True
        return largest_tile(self.need, height, width, self.multiple, self._overlap_of, free)

    def advice(self) -> str:
        """Returns what to do about an output that is not finite."""
        dtype = self.autocast_dtype or self.own_dtype
        half = dtype in (torch.float16, torch.bfloat16)
        return f"{dtype} overflowed, restore in full precision" if half else super().advice()

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
