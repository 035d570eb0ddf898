"""Which implementation computes: one table, one switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from torch import Tensor

from . import kernels, reference
from . import torch as concat_free
from .terms import CrossTerms, FusedTerms, LinearTerms

BackendName = Literal["auto", "reference", "torch", "triton"]


class Backend(Protocol):
    """What a backend offers: one function an attention family, on tensors and terms."""

    def mdta(self, x: Tensor, terms: FusedTerms) -> Tensor:
        """See :func:`mdta`."""

    def cross(self, x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
        """See :func:`cross`."""

    def histogram(self, x: Tensor, terms: FusedTerms) -> Tensor:
        """See :func:`histogram`."""

    def xca(self, x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
        """See :func:`xca`."""


_BACKENDS: dict[str, Backend] = {
    "auto": concat_free,
    "reference": reference,
    "torch": concat_free,
    "triton": kernels,
}
# A plain global rather than a context variable: torch.compile guards on it, and DataParallel's threads see it.
_current: BackendName = "auto"


@contextmanager
def backend(name: BackendName) -> Iterator[None]:
    """Computes every ExDA attention inside the block with the named backend.

    Args:
        name: ``"reference"`` (the printed formulas, the oracle), ``"torch"`` (concat-free), ``"triton"`` (concat-free
            on kernels for CUDA GPUs of compute capability 8.0 and newer, and as ``"torch"`` wherever they do not
            apply), or ``"auto"``, which is ``"torch"`` until the kernels have proven themselves on GPUs. Blocks that
            :func:`exda_primitives.fuse` put in place use the kernels under ``"auto"`` as well.

    Raises:
        ValueError: for an unknown name, listing the known ones.

    Example:
        >>> import torch, exda_primitives as exda
        >>> attention, x = exda.ExDAAttention(8, 2, bias=False), torch.randn(1, 8, 6, 5)
        >>> with exda.backend("reference"):
        ...     oracle = attention(x)
        >>> torch.allclose(attention(x), oracle, atol=1e-5)
        True
    """
    global _current  # noqa: PLW0603
    if name not in _BACKENDS:
        raise ValueError(f"exda.backend({name!r}): unknown backend; known are {', '.join(map(repr, _BACKENDS))}")
    previous, _current = _current, name
    try:
        yield
    finally:
        _current = previous


def current_backend() -> BackendName:
    """The one that is named by the innermost :func:`backend`, or ``"auto"``."""
    return _current


def fuses() -> bool:
    """Whether fused blocks may use the kernels."""
    return _current in ("auto", "triton")


def mdta(x: Tensor, terms: FusedTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[_current].mdta(x, terms)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Cross attention with ExDA's primitives, two maps of (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[_current].cross(x, y, terms)


def histogram(x: Tensor, terms: FusedTerms) -> Tensor:
    """Histoformer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[_current].histogram(x, terms)


def xca(x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
    """Cross-covariance attention with ExDA's primitives, (B, N, C) -> (B, N, C), N pixels of a map of ``size``."""
    return _BACKENDS[_current].xca(x, size, terms)
