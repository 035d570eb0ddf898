"""EXIF in TIFF files, which libvips neither reads nor writes: there, its tags stand among those of the image."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

_PREFIX = b"Exif\0\0"
_HEADER = 8

_DESCRIPTIVE = (
    270,  # ImageDescription
    271,  # Make
    272,  # Model
    305,  # Software
    306,  # DateTime
    315,  # Artist
    33432,  # Copyright
    34665,  # the Exif tags proper
    34853,  # GPS
)
"""Tags that say something about the image; all others of a TIFF say how it is stored."""


_ORIENTATION, _XMP = 274, 700

_T = TypeVar("_T")


def exif_of_tiff(data: bytes) -> bytes | None:
    """The descriptive tags of a TIFF file as an EXIF block, as JPEG and PNG hold it; None if there are none.

    A block that cannot be read is left behind: it is not a reason to refuse the pixels.
    """

    def block() -> bytes | None:
        # An EXIF block is a TIFF file without pixels.
        tags = _descriptive(data)
        return tags.tobytes() if len(tags) else None

    return _if_readable(block)


def orientation_of_tiff(data: bytes) -> int | None:
    """What the tags of a TIFF file say of it; None if nothing, where libvips says 1."""
    return _if_readable(lambda: _loaded(data).get(_ORIENTATION))


def xmp_of_tiff(data: bytes) -> bytes | None:
    """The block of XMP, of which libvips reads one of the two types of number that it is stored as."""
    xmp = _if_readable(lambda: _loaded(data).get(_XMP))
    return xmp if isinstance(xmp, bytes) else None


def _if_readable(read: Callable[[], _T]) -> _T | None:
    try:
        # Pillow warns of each value that is cut off, and goes on.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return None


def tiff_with_exif(data: bytes, exif: bytes) -> bytes:
    """A TIFF file with the descriptive tags of an EXIF block: a longer directory, appended, takes the old one's place.

    Source: TIFF 6.0, section 2: a directory is a count, entries of 12 bytes ordered by tag, and where the next one is.

    Args:
        data: of one page, classic TIFF.
        exif: as ``exif_of_tiff`` gives it.
    """
    order = "<" if data[:2] == b"II" else ">"
    tags = _descriptive(exif)
    tags.endian = order
    # Offsets are even.
    data += b"\0" * (len(data) % 2)
    described = len(data)
    data += tags.tobytes(described)[len(_PREFIX) + _HEADER :]
    data += b"\0" * (len(data) % 2)
    # Values beyond four bytes lie elsewhere and stay there: entries can be taken as they are.
    (stored,) = struct.unpack_from(f"{order}I", data, 4)
    entries = _entries(data, described, order) | _entries(data, stored, order)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[_HEADER:] + directory


def _entries(data: bytes, at: int, order: str) -> dict[int, bytes]:
    """The directory at an offset: tag -> entry."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    entries = [data[begin : begin + 12] for begin in range(at + 2, at + 2 + 12 * count, 12)]
    return {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in entries}


def _loaded(data: bytes) -> Image.Exif:
    tags = Image.Exif()
    tags.load(data)
    return tags


def _descriptive(data: bytes) -> Image.Exif:
    tags = _loaded(data)
    for tag in [tag for tag in tags if tag not in _DESCRIPTIVE]:
        del tags[tag]
    return tags
