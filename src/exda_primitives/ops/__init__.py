"""Pure functions on tensors that compute the attentions, by backend.

``reference`` has the formulas as printed, ``torch`` the same without the concatenation, ``triton`` that on Triton
kernels, ``cpu`` that strip by strip on a CPU. ``dispatch`` chooses.
"""

from .choice import BackendName
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
