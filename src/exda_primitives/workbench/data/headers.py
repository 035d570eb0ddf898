"""Reads the headers of image files without their pixels."""

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
"""The EXIF tag of the orientation."""

_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""

_GREY = (*GREY16, "1", "L", "LA")
"""Pillow's modes of grey images."""

_ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
"""First bytes of a PNG or JPEG file -> last bytes of a complete one."""

_TAIL = 64
"""Bytes at the end of a file in which to look for these: some programs write a little after them."""


class Header(NamedTuple):
    """Size and format of one image.

    Attributes:
        height: height in pixels, once upright.
        width: width in pixels, once upright.
        channels: 1 for grey, 3 for colour.
        bits: bits per channel, 8 or 16.
        stamp: a checksum to recognise the image by. For a file, of its size and last bytes, where a PNG keeps a
            checksum of all pixels; in a zip or an npz, the checksum that is stored there.
    """

    height: int
    width: int
    channels: int
    bits: int
    stamp: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


def read_header(path: Path) -> Header:
    """Reads the header of an image file; the whole file if its end does not prove that it is complete.

    Raises:
        ImageError: the file is missing, damaged, cut short, no image, or too large.
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
    """Reads the header of an open file, and all of its pixels unless it is known to be ``whole``.

    Args:
        file: the file, at its start.
        name: name for messages.
        stamp: stamp of the header.
        whole: whether the file is known to be complete.

    Raises:
        ImageError: as ``read_header``.
    """
    with opened(file, name) as image:
        if image.mode == "F":
            raise ImageError(f"{name} holds floats, whose range is unknown; 8 or 16 bits are read")
        # Image.Image.getexif, since that of PNG images reads the pixels. Newer Pillow gives a TIFF's size upright.
        turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in _ON_ITS_SIDE
        # Pillow opens 16-bit colour as 8-bit RGB; only the tiles' raw mode tells.
        bits = 16 if image.mode in GREY16 or any(";16" in str(tile) for tile in getattr(image, "tile", ())) else 8
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        channels = 1 if image.mode in _GREY else 3
        if not whole:
            image.load()
    return Header(height, width, channels, bits, stamp)


def header_of_tensor(image: Tensor, stamp: int) -> Header:
    """Returns the header of an image (C, H, W) that is read already."""
    channels, height, width = image.shape
    return Header(height, width, channels, 8, stamp)


def _is_whole(start: bytes, tail: bytes, size: int) -> bool:
    """Returns whether a file's end shows that it is complete; False if that cannot be told."""
    # WebP's header holds the size of what follows its first 8 bytes.
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size
    return any(start.startswith(begin) and end in tail for begin, end in _ENDS.items())
