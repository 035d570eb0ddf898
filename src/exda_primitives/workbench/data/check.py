"""Checks every image of a set before work starts, by its header alone where that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from ...errors import ImageError
from ..shared.messages import with_problems
from .headers import Header
from .paired import PairedFileSet, PairedSet


class Checked(NamedTuple):
    """A summary of the images that were checked.

    Attributes:
        images: number of images; a pair of files counts as two.
        smallest: shortest side of any image, in pixels.
        largest: longest side of any image, in pixels.
        grey: number of grey images.
        deep: number of 16-bit colour images, of which only the upper 8 bits are read.
        stamp: hexadecimal SHA-256 of all sizes and stamps; it changes with the images.
    """

    images: int
    smallest: int
    largest: int
    grey: int
    deep: int
    stamp: str


def check(pairs: PairedSet | PairedFileSet) -> Checked:
    """Checks that all images can be read, are large enough for the patches, and have the same size as their partner.

    Raises:
        ImageError: some do not pass; the message names the first ten with the reason.
    """
    found: list[Header] = []
    problems: list[str] = []
    for source, name in enumerate(pairs.sources):
        try:
            headers = pairs.headers(source)
        except ImageError as error:
            problems.append(str(error))
            continue
        found += headers
        problems += _problems(name, headers, pairs.patch)
    if problems:
        of = f"{len(problems)} of {len(pairs.sources)} images cannot be used"
        raise ImageError(with_problems(f"{of}; mend them, or take them out of the set:", problems))
    return _summary(found)


def _problems(name: str, headers: Sequence[Header], patch: int | None) -> list[str]:
    """Returns the problem of one source image or pair, as a list of at most one text."""
    clean, *degraded = headers
    if any(each.size != clean.size for each in degraded):
        sizes = " and ".join(f"{each.height} x {each.width}" for each in (*degraded, clean))
        return [f"{name}: the degraded and the clean image are no pair, they have {sizes} pixels"]
    if patch is not None and min(clean.size) < patch:
        return [f"{name} has {clean.height} x {clean.width} pixels, too few for patches of {patch}"]
    return []


def _summary(found: Sequence[Header]) -> Checked:
    sides = [side for header in found for side in header.size]
    stamp = sha256("\n".join(f"{each.size} {each.stamp}" for each in found).encode())
    return Checked(
        images=len(found),
        smallest=min(sides),
        largest=max(sides),
        grey=sum(each.channels == 1 for each in found),
        deep=sum(each.bits == 16 and each.channels == 3 for each in found),
        stamp=stamp.hexdigest(),
    )
