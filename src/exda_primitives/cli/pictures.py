"""Pictures that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from ..data.decode import Channels
    from ..data.pictures import Pictures


def opened(path: Path, channels: Channels) -> Pictures:
    """As :func:`~exda_primitives.data.open_pictures`; what else is there is printed, for it is left out."""
    from ..data import open_pictures  # noqa: PLC0415
    from ..errors import some_of  # noqa: PLC0415

    pictures = open_pictures(path, channels)
    if pictures.left_out:
        left_out = f"no pictures, left out: {some_of(pictures.left_out)}"
        Console().print(left_out, markup=False, highlight=False, soft_wrap=True)
    return pictures
