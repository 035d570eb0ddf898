"""The primitives as modules, for authors of models."""

from .base import ExDAModule
from .conditioned import ExDAMaskedAttention, ExDAPriorAttention
from .config import ExDAConfig, ExDAOptions
from .cross import ExDACrossAttention
from .gsa import ExDAPointwiseAttention
from .histogram import ExDAHistogramAttention
from .layers import depthwise, pointwise
from .mdta import ExDAAttention
from .smsa import ExDASpectralAttention
from .token import GST
from .value import NonlinearValue
from .window import ExDAWindowAttention
from .xca import ExDAXCAttention

__all__ = [
    "GST",
    "ExDAAttention",
    "ExDAConfig",
    "ExDACrossAttention",
    "ExDAHistogramAttention",
    "ExDAMaskedAttention",
    "ExDAModule",
    "ExDAOptions",
    "ExDAPointwiseAttention",
    "ExDAPriorAttention",
    "ExDASpectralAttention",
    "ExDAWindowAttention",
    "ExDAXCAttention",
    "NonlinearValue",
    "depthwise",
    "pointwise",
]
