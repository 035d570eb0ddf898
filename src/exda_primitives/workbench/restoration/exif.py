"""Reads and writes EXIF in TIFF files, where its tags are mixed with the image's own; libvips does neither."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

_PREFIX = b"Exif\0\0"
"""What JPEG puts before an EXIF block, which is itself a TIFF file without pixels."""
_HEADER = 8
"""Bytes of a TIFF file's header: byte order (2), 42 (2), offset of the first directory (4)."""

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
"""Tags that describe the image; all others of a TIFF describe how it is stored."""


_ORIENTATION, _XMP = 274, 700

_T = TypeVar("_T")


def exif_of_tiff(data: bytes) -> bytes | None:
    """Returns the descriptive tags of a TIFF file as an EXIF block, as in JPEG and PNG; None if there are none.

    Damaged tags give None as well: they are no reason to refuse the pixels.
    """

    def block() -> bytes | None:
        tags = _descriptive(data)
        return tags.tobytes() if len(tags) else None

    return _if_readable(block)


def orientation_of_tiff(data: bytes) -> int | None:
    """Returns the orientation by the tags of a TIFF file, or None without such a tag (libvips would return 1)."""
    return _if_readable(lambda: _loaded(data).get(_ORIENTATION))


def xmp_of_tiff(data: bytes) -> bytes | None:
    """Returns the XMP block of a TIFF file, or None; libvips reads only one of the two tag types it may have."""
    xmp = _if_readable(lambda: _loaded(data).get(_XMP))
    return xmp if isinstance(xmp, bytes) else None


def _if_readable(read: Callable[[], _T]) -> _T | None:
    try:
        # Pillow warns of each value that is cut off, and reads the others.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return None


def tiff_with_exif(data: bytes, exif: bytes) -> bytes:
    """Adds the descriptive tags of an EXIF block to a TIFF file, by appending a longer directory that replaces the old.

    Source: TIFF 6.0, section 2: a directory is a count, entries of 12 bytes in the order of their tags, and the offset
    of the next directory.

    Args:
        data: classic TIFF (32-bit offsets) of one page.
        exif: EXIF block, as ``exif_of_tiff`` returns it.

    Returns:
        The new file; where both have a tag, the image's own is kept.
    """
    order = "<" if data[:2] == b"II" else ">"
    tags = _descriptive(exif)
    tags.endian = order
    # TIFF requires even offsets, of values and directories.
    data += b"\0" * (len(data) % 2)
    # Appends the block without its header; Pillow makes the offsets in it relative to the whole file.
    described = len(data)
    data += tags.tobytes(described)[len(_PREFIX) + _HEADER :]
    data += b"\0" * (len(data) % 2)
    # An entry holds a value of up to four bytes, or the offset of a longer one, which stays where it is: all entries
    # can be copied as they are.
    (stored,) = struct.unpack_from(f"{order}I", data, 4)
    entries = _entries(data, described, order) | _entries(data, stored, order)
    # The four zero bytes say that no other directory follows.
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[_HEADER:] + directory


def _entries(data: bytes, at: int, order: str) -> dict[int, bytes]:
    """Reads the directory at an offset: tag -> its entry of 12 bytes."""
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
