"""Restores images by an ONNX file and onnxruntime. Nothing here needs PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import ExDAError, ImageError
from ..shared.onnx_session import OnnxFile
from ..shared.padding import padded_side
from .tiled import TiledRestorer
from .tiles import Pixels

TILE = 512
"""Side in pixels of the tiles, unless another is given: the memory that onnxruntime takes is not known."""

_MULTIPLE = 8
"""Multiple of image sides for a file that names none, as for a network that is not known."""


class OnnxRestorer(TiledRestorer):
    """Restores images by an ONNX file, in tiles.

    Args:
        file: a file that ``exda export`` wrote, or any other ONNX file that makes one float32 image of one, of any
            size.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for whatever onnxruntime has here.
        tile: side of the tiles in pixels; by default 512.
        overlap: least pixels that tiles share; by default as for ``Restorer``.

    Raises:
        ConfigError: for a tile or an overlap that is not allowed.
        ExDAError: for a file that onnxruntime cannot run, or that does not take one colour or grey image of any size.
        ImageError: for a file that makes something else than an image of the same shape.

    Examples:
        >>> from exda_primitives.workbench.restoration.onnx import OnnxRestorer
        >>> restorer = OnnxRestorer(Path("demo.onnx"))  # doctest: +SKIP
        >>> restorer.restore_array(np.random.rand(3, 480, 640).astype(np.float32)).image.shape  # doctest: +SKIP
        (3, 480, 640)
    """

    def __init__(
        self, file: Path, device: str = "auto", *, tile: int | None = None, overlap: int | None = None
    ) -> None:
        self._onnx = OnnxFile(file, device)
        _check_restores(file, self._onnx.shape)
        multiple = self._onnx.metadata.get("multiple", "")
        super().__init__(
            int(multiple) if multiple.isdecimal() and int(multiple) else _MULTIPLE,
            tile or TILE,
            overlap,
            sorts=self._onnx.metadata.get("sorts") == "yes",
        )
        self.channels = self._channels(file)

    def run(self, image: Pixels) -> Pixels:
        """Returns the file's output for a padded image."""
        shown = np.ascontiguousarray(np.broadcast_to(image, (self.channels, *image.shape[1:])), np.float32)
        made: Pixels = self._onnx(shown[None])[0].astype(image.dtype, copy=False)
        return made

    def _channels(self, file: Path) -> int:
        """Returns the channels of the file's images, by its input's shape or by trying.

        Raises:
            ExDAError: for a file that takes neither.
            ImageError: for a file that does not make an image of the same shape.
        """
        said = self._onnx.shape[1]
        side = padded_side(1, self.multiple)
        errors: list[ExDAError] = []
        for channels in (said,) if isinstance(said, int) else (3, 1):
            try:
                made = self._onnx(np.zeros((1, channels, side, side), np.float32)).shape
            except ExDAError as error:
                errors.append(error)
                continue
            given = (1, channels, side, side)
            if made != given:
                raise ImageError(f"{file}: makes {made} of an image {given}, expected an image of the same shape.")
            return channels
        raise errors[0]


def _check_restores(file: Path, shape: list[int | str]) -> None:
    """Refuses a file that does not take one colour or grey image of any size.

    Raises:
        ExDAError: it has another number of channels or none in their place, or its sizes are fixed.
    """
    batch, channels, *sides = shape
    # A number is fixed, a name is not.
    if channels not in (1, 3) and sides[1] in (1, 3):
        said = ", ".join(map(str, shape))
        raise ExDAError(f"{file}: takes ({said}), the channels last; expected (batch, channels, height, width)")
    if isinstance(channels, int) and channels not in (1, 3):
        raise ExDAError(f"{file}: takes images of {channels} channels; expected 3 (colour) or 1 (grey)")
    if any(isinstance(side, int) for side in sides):
        raise ExDAError(
            f"{file}: takes only images of {sides[0]} x {sides[1]} pixels; expected any height and width: export it "
            f"with dynamic sizes, as exda export does"
        )
    if isinstance(batch, int) and batch != 1:
        raise ExDAError(f"{file}: takes {batch} images at a time; expected any number, or 1")
