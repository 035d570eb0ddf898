"""What readers of image files keep to: endings of names, the largest size, the orientation that EXIF and XMP say."""

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
"""Endings of file names, in lower case, and the formats that they stand for: those that are restored and written."""

SUFFIXES = frozenset({*FORMATS, ".bmp", ".pgm", ".ppm"})
"""Endings of the names of all files that are read as images of a data set."""

MAX_PIXELS = 2**29
"""Half a billion, more than any camera makes: a header that claims more is refused before anything is allocated."""

# An attribute or an element: both are allowed.
_IN_XMP = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)([1-8])""")


def orientation_of_xmp(xmp: bytes) -> int | None:
    """1 to 8, or None where a block of XMP says nothing of it; where EXIF does, that counts.

    Source: XMP Specification, part 2, section 3.2: ``tiff:Orientation`` is EXIF's.
    """
    found = _IN_XMP.search(xmp)
    return int(found[2]) if found else None


def upright_xmp(xmp: bytes) -> bytes:
    """The block for the image as it is seen, which needs no turning."""
    return _IN_XMP.sub(rb"\g<1>1", xmp)


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of stored pixels as they are to be seen.

    Source: the tag Orientation (274) of Exif 2.3 and TIFF 6.0, which names the sides at which the first stored row
    and the first stored column are seen.

    Args:
        stored: (rows, columns, ...).
        orientation: 1 to 8; anything else counts as 1.

    Returns:
        (H, W, ...); rows and columns are swapped for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    # 2: first column at the right; 3: and first row at the bottom; 4: that alone. 5 to 8: the same after swapping.
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return stored
