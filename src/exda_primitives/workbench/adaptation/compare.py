"""Compares a network before and after on the images that were held out."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from ..data import Pair, PairedFileSet, PairedSet
from ..evaluation import Case, Score, evaluate
from ..evaluation.protocols import PLAIN
from ..restoration import Restorer
from ..shared.crops import centre
from ..shared.sheets import sheet

MOST_SHOWN, SIDE = 3, 256
"""Images on the sheet, and the longest side in pixels of the crops of them."""

EQUAL = 100.0
"""PSNR in dB that stands for equal images, whose own is infinite."""

Pairs = PairedSet | PairedFileSet


def compare(pairs: Pairs, before: Restorer, after: Restorer) -> list[dict[str, Any]]:
    """Restores all pairs with both networks.

    Args:
        pairs: whole images.
        before: restores with the host.
        after: restores with the adapted host.

    Returns:
        For each pair, plain data: name, degradation, and PSNR (dB, at most ``EQUAL``) and SSIM by ``PLAIN`` of the
        degraded image and of what both networks make of it.

    Raises:
        ImageError: for an image that cannot be read, and for an output that is not finite.
    """
    pairs.set_epoch(0)
    cases = [_case(pairs[index]) for index in range(len(pairs))]
    return [
        {
            "name": old.name,
            "degradation": old.degradation,
            **_figures("degraded", old.degraded),
            **_figures("before", old.restored),
            **_figures("after", new.restored),
        }
        for old, new in zip(evaluate(before, cases, PLAIN), evaluate(after, cases, PLAIN), strict=True)
    ]


def sheet_of(pairs: Pairs, before: Restorer, after: Restorer) -> Image.Image:
    """Returns a sheet with a row for each of a few pairs, evenly spread: degraded, before, after, clean."""
    pairs.set_epoch(0)
    number = min(MOST_SHOWN, len(pairs))
    rows = []
    for row in range(number):
        degraded, clean, *_ = pairs[row * len(pairs) // number]
        restored = {"before": before(degraded).image, "after": after(degraded).image}
        rows.append({name: _shown(each) for name, each in {"degraded": degraded, **restored, "clean": clean}.items()})
    return sheet(rows)


def _case(pair: Pair) -> Case:
    return Case(pair.name, pair.degradation, lambda: pair.clean, stored=lambda: pair.degraded)


def _figures(of: str, score: Score) -> dict[str, float]:
    return {f"{of}_psnr": min(score.psnr, EQUAL), f"{of}_ssim": score.ssim}


def _shown(image: Tensor) -> Tensor:
    """Returns the centre, (1, 3, H, W) on the CPU; grey is repeated for the three colours."""
    return centre(image[None], SIDE).cpu().expand(1, 3, -1, -1)
