"""What all plots share: Matplotlib, imported on demand, and colours."""

from __future__ import annotations

from typing import Any

from ...extras import require_extra

# Distinguishable with red-green colour blindness as well (Okabe and Ito, "Color Universal Design", 2008).
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#999999"


def matplotlib_figure(extra: str) -> Any:
    """Returns ``matplotlib.figure``, whose figures need no display (unlike pyplot's).

    Args:
        extra: name of the extra that installs Matplotlib, for the error.

    Raises:
        ExDAError: if Matplotlib is not installed.
    """
    return require_extra("matplotlib.figure", extra)
