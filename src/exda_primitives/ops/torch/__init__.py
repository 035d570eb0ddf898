"""The attentions without the concatenation, folded, in plain PyTorch: differentiable, on any device; the default."""

from .channel import cross, mdta, xca
from .histogram import histogram
from .window import window

__all__ = ["cross", "histogram", "mdta", "window", "xca"]
