"""What image files say of themselves, before their pixels are read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image
from torch import Tensor

from ...errors import ImageError
from .decode import GREY16, opened

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
_GREY = (*GREY16, "1", "L", "LA")

_ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
"""How files begin -> what whole ones end with: PNG and JPEG."""
_TAIL = 64
"""Bytes in which to look for it: some programs put a little behind it."""


class Header(NamedTuple):
    """Of one image.

    Attributes:
        height: in pixels, upright.
        width: likewise.
        channels: 1 for grey, 3 for colour.
        bits: of a channel, 8 or 16.
        stamp: a number that another image hardly has: a checksum of the file's size and end, where PNG keeps one of
            all pixels; of a zip's or an npz's, the checksum that is kept there.
    """

    height: int
    width: int
    channels: int
    bits: int
    stamp: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def read_header(path: Path) -> Header:
    """Of an image file; where its end does not show that it is whole, all of it is read.

    Raises:
        ImageError: for a file that is missing, damaged, cut short, no image or too large.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(12)
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            file.seek(0)
            return header_of(file, str(path), zlib.crc32(tail, size), whole=_is_whole(start, tail, size))
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def header_of(file: IO[bytes], name: str, stamp: int, *, whole: bool) -> Header:
    """Of an open file; ``name`` is for the messages, and what is not known to be ``whole`` is read to its end.

    Raises:
        ImageError: as ``read_header``.
    """
    with opened(file, name) as image:
        if image.mode == "F":
            raise ImageError(f"{name} holds floats, whose range is unknown; 8 or 16 bits are read")
        # Of PNG, its own getexif reads the pixels; of TIFF, Pillow's newer versions give the size upright.
        turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in _ON_ITS_SIDE
        bits = 16 if image.mode in GREY16 or any(";16" in str(tile) for tile in getattr(image, "tile", ())) else 8
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        channels = 1 if image.mode in _GREY else 3
        if not whole:
            image.load()
    return Header(height, width, channels, bits, stamp)


def header_of_tensor(image: Tensor, stamp: int) -> Header:
    """Of an image (C, H, W) that had to be read for it."""
    channels, height, width = image.shape
    return Header(height, width, channels, 8, stamp)


def _is_whole(start: bytes, tail: bytes, size: int) -> bool:
    """Whether a file ends as a whole one of its kind; False where that cannot be told."""
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size
    return any(start.startswith(begin) and end in tail for begin, end in _ENDS.items())
