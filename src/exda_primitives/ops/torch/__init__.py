"""The same functions without the concatenation, folded: plain PyTorch, differentiable, any device. The default."""

from .channel import cross, mdta, xca
from .histogram import histogram
from .window import window

__all__ = ["cross", "histogram", "mdta", "window", "xca"]
