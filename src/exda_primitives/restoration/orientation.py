"""EXIF orientation: how stored rows and columns become the picture that is seen."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


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
