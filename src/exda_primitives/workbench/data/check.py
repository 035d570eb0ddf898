"""Every image of a set looked at before the work, by its header where that tells enough."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from ...errors import ImageError
from .headers import Header
from .paired import PairedFileSet, PairedSet

SHOWN = 10
"""Images that a message names before it only counts them."""


class Checked(NamedTuple):
    """What was found.

    Attributes:
        images: how many there are, both of each pair.
        smallest: shortest side among them, in pixels.
        largest: longest side.
        grey: how many of them hold no colours.
        deep: how many hold colours of 16 bits, of which the upper 8 are read.
        stamp: hexadecimal; images of other sizes or contents have another one.
    """

    images: int
    smallest: int
    largest: int
    grey: int
    deep: int
    stamp: str


def check(pairs: PairedSet | PairedFileSet) -> Checked:
    """Looks at all images: whether they can be read, are large enough for the patches, and as large as their partner.

    Raises:
        ImageError: for those that are not, of which the first ten are named with the reason.
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
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        of = f"{len(problems)} of {len(pairs.sources)} images cannot be used"
        raise ImageError("\n  ".join([f"{of}; mend them, or take them out of the set:", *problems[:SHOWN], *more]))
    return _summary(found)


def _problems(name: str, headers: Sequence[Header], patch: int | None) -> list[str]:
    """Of a source: at most one."""
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
