"""Opens the images that a command is given, and prints what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from .names import printable

if TYPE_CHECKING:
    from ..workbench.data.decode import Channels
    from ..workbench.data.images import Images


def open_and_report(path: Path, channels: Channels) -> Images:
    """Opens images as ``exda_primitives.workbench.data.open_images`` does, and prints which files are left out."""
    from ..workbench.data import open_images  # noqa: PLC0415

    images = open_images(path, channels)
    if images.left_out:
        print_left_out("no images", images.left_out, Console())
    return images


def print_left_out(why: str, names: Sequence[str], console: Console) -> None:
    """Prints the reason, the first of the names, and how many there are."""
    from ..errors import some_of  # noqa: PLC0415

    left_out = printable(f"{why}, left out: {some_of(names)}")
    console.print(left_out, markup=False, highlight=False, soft_wrap=True)
