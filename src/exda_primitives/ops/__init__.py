"""Pure functions on tensors: the formulas as printed (``reference``) and without the concatenation (``torch``)."""

from .chosen import BackendName
from .dispatch import Operation, backend, cross, histogram, mdta, xca
from .terms import CrossTerms, LinearTerms, PackedQKVTerms, Projection, TokenTerms, ValueTerms

__all__ = [
    "BackendName",
    "CrossTerms",
    "LinearTerms",
    "Operation",
    "PackedQKVTerms",
    "Projection",
    "TokenTerms",
    "ValueTerms",
    "backend",
    "cross",
    "histogram",
    "mdta",
    "xca",
]
