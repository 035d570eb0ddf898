"""Rules shared by all readers of image files: suffixes, largest size, orientation by EXIF and XMP."""

from __future__ import annotations

import re
from typing import Any

from numpy.typing import NDArray

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}
"""Lower-case suffix -> format, for the formats that restoration reads and writes."""

SUFFIXES = frozenset({*FORMATS, ".bmp", ".pgm", ".ppm"})
"""Lower-case suffixes of the files that data sets read as images."""

MAX_PIXELS = 2**29
"""Half a billion, more than any camera makes; a header that claims more is refused before anything is allocated."""

# XMP writes a property as an attribute (tiff:Orientation="6") or as an element (<tiff:Orientation>6<...).
_IN_XMP = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)([1-8])""")


def orientation_of_xmp(xmp: bytes) -> int | None:
    """Returns the orientation in an XMP block, 1 to 8, or None if it has none; callers let EXIF's win.

    Source: XMP Specification, part 2, section 3.2: ``tiff:Orientation`` has the meaning of EXIF's tag.
    """
    found = _IN_XMP.search(xmp)
    return int(found[2]) if found else None


def upright_xmp(xmp: bytes) -> bytes:
    """Returns the XMP block with its orientation, if any, set to 1: for pixels that are stored upright."""
    return _IN_XMP.sub(rb"\g<1>1", xmp)


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Returns a view of the stored pixels turned upright.

    Source: the tag Orientation (274) of Exif 2.3 and TIFF 6.0, which names the sides of the upright image at which
    the first stored row and the first stored column appear.

    Args:
        stored: (rows, columns, ...).
        orientation: 1 to 8; anything else counts as 1.

    Returns:
        (H, W, ...); rows and columns are swapped for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    # The first stored column is at the right for 2 and 3, the first stored row at the bottom for 3 and 4. For 5 to 8
    # rows and columns are swapped, so columns flip for 6 and 7 and rows for 7 and 8.
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return stored
