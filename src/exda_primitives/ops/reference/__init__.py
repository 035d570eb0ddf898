"""The formulas as the paper prints them, with the concatenation: slow, literal, the oracle of every other path."""

from .channel import cross, mdta, xca
from .histogram import histogram
from .window import window

__all__ = ["cross", "histogram", "mdta", "window", "xca"]
