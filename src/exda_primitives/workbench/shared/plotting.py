"""What all plots share: Matplotlib, imported when it is needed, and colours."""

from __future__ import annotations

from typing import Any

from ...extras import require_extra

# Told apart by those who see no red or no green as well (Okabe and Ito, "Color Universal Design", 2008).
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#999999"


def matplotlib_figure(extra: str) -> Any:
    """The module of figures that need no display.

    Args:
        extra: that brings Matplotlib.

    Raises:
        ExDAError: where it is missing.
    """
    return require_extra("matplotlib.figure", extra)
