"""Pure functions on tensors: the formulas as printed (``reference``) and without the concatenation (``torch``)."""

from .chosen import BackendName
from .dispatch import Backend, backend, cross, histogram, mdta, xca

__all__ = ["Backend", "BackendName", "backend", "cross", "histogram", "mdta", "xca"]
