"""Pure functions on tensors: the formulas as printed (``reference``) and without the concatenation (``torch``)."""

from .chosen import BackendName
from .dispatch import Operation, backend, cross, histogram, mdta, window, xca
from .terms import CrossTerms, LinearTerms, PackedQKVTerms, Projection, TokenTerms, ValueTerms, WindowTerms

__all__ = [
    "BackendName",
    "CrossTerms",
    "LinearTerms",
    "Operation",
    "PackedQKVTerms",
    "Projection",
    "TokenTerms",
    "ValueTerms",
    "WindowTerms",
    "backend",
    "cross",
    "histogram",
    "mdta",
    "window",
    "xca",
]
