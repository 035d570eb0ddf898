"""Shows what the network makes of a few validation images, as one sheet that each validation replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...files import atomic_write
from ..shared.crops import centre

SIDE = 256
"""Longest side of a crop, in pixels."""


class ValidationImages:
    """A sheet with a row for each of a few pairs: centre crops of the degraded, the restored and the clean image.

    The pairs are spread evenly over the data set, which holds one degradation after the other.

    Args:
        fabric: this process's Fabric.
        pairs: length of the data set.
        number: number of pairs to show, at most.
    """

    def __init__(self, fabric: Any, pairs: int, number: int) -> None:
        self._fabric = fabric
        number = min(number, pairs)
        self._rows = {row * pairs // number: row for row in range(number)}
        # Rows, columns, colours, and room for the largest crop: alike in all processes, whatever they have seen.
        self._crops = torch.zeros(number, 3, 3, SIDE, SIDE, dtype=torch.uint8)
        self._extent = torch.zeros(2, dtype=torch.int64)

    def add(self, index: int, degraded: Tensor, restored: Tensor, clean: Tensor) -> None:
        """Adds a pair if it is one of those to show.

        Args:
            index: of the pair in its data set.
            degraded: (C, H, W) in [0, 1], C 3 or 1.
            restored: same shape, any range.
            clean: same shape as ``degraded``.
        """
        row = self._rows.get(index)
        if row is None:
            return
        for column, image in enumerate((degraded, restored, clean)):
            crop = centre(image, SIDE)
            height, width = crop.shape[-2:]
            levels = (crop.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
            # One channel is repeated for the three colours.
            self._crops[row, column, :, :height, :width] = levels
            self._extent = torch.maximum(self._extent, torch.tensor([height, width]))

    def sheet(self) -> Tensor | None:
        """Returns the sheet, (height, width, 3) uint8 on the CPU, or None if no pair is to be shown.

        All processes must call it, and get the same sheet, whichever of them restored the pairs.
        """
        if not self._rows:
            return None
        device = self._fabric.device
        # Each row was filled by one process; in the others it is 0.
        crops = self._fabric.all_reduce(self._crops.to(device), reduce_op="sum").cpu()
        height, width = self._fabric.all_reduce(self._extent.to(device), reduce_op="max").tolist()
        rows: Tensor = crops[..., :height, :width].permute(0, 3, 1, 4, 2)
        return rows.flatten(2, 3).flatten(0, 1).contiguous()


def write_sheet(path: Path, sheet: Tensor) -> None:
    """Writes a sheet as a PNG file; replaced atomically.

    Raises:
        OSError: if it cannot be written.
    """
    with atomic_write(path) as partial:
        # The format is given, as the partial file's name does not end in .png.
        Image.fromarray(sheet.numpy()).save(partial, format="PNG")
