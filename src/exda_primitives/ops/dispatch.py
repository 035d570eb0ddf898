"""Which implementation computes: one table, one switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from . import auto, chosen, reference, triton_or_torch
from . import torch as concat_free
from .chosen import BackendName
from .terms import CrossTerms, LinearTerms, PackedQKVTerms


class Backend(Protocol):
    """What a backend offers: one function an attention family, on tensors and terms."""

    def mdta(self, x: Tensor, terms: PackedQKVTerms) -> Tensor:
        """See ``mdta``."""

    def cross(self, x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
        """See ``cross``."""

    def histogram(self, x: Tensor, terms: PackedQKVTerms) -> Tensor:
        """See ``histogram``."""

    def xca(self, x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
        """See ``xca``."""


_BACKENDS: dict[str, Backend] = {
    "auto": auto,
    "reference": reference,
    "torch": concat_free,
    "triton": triton_or_torch,
}
# What is entered inside of a compiled function, whose tracer follows a global; None whenever anything else runs.
_in_graph: BackendName | None = None


@contextmanager
def backend(name: BackendName) -> Iterator[None]:
    """Computes every ExDA attention inside the block with the named backend.

    Each thread, and each task of asyncio, has a choice of its own: a new thread begins with ``"auto"`` (replicas of
    DataParallel with that of their caller). A compiled function is compiled once for each.

    Args:
        name: ``"reference"`` (the printed formulas, the oracle), ``"torch"`` (concat-free), ``"triton"`` (concat-free
            on kernels for CUDA GPUs of compute capability 8.0 and newer, and as ``"torch"`` wherever they do not
            apply), or ``"auto"``, which is ``"torch"`` until the kernels have proven themselves on GPUs; on a CPU, and
            without gradients, it takes larger maps strip by strip. Blocks that
            ``exda_primitives.fuse`` put in place are fused under ``"auto"`` as well, on a CPU by PyTorch's own
            operations; under ``"triton"`` they are by kernels alone.

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
    global _in_graph  # noqa: PLW0603
    if name not in _BACKENDS:
        raise ValueError(f"exda.backend({name!r}): unknown backend; known are {', '.join(map(repr, _BACKENDS))}")
    if not is_dynamo_compiling():
        with chosen.choose(name):
            yield
        return
    previous, _in_graph = _in_graph, name
    try:
        yield
    finally:
        _in_graph = previous


def current_backend() -> BackendName:
    """The one that is named by the innermost ``backend``, or ``"auto"``."""
    if is_dynamo_compiling() and _in_graph is not None:
        return _in_graph
    return chosen.current


def fuses() -> bool:
    """Whether fused blocks may compute their steps otherwise than by their modules."""
    return current_backend() in ("auto", "triton")


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[current_backend()].mdta(x, terms)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Cross attention with ExDA's primitives, two maps of (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[current_backend()].cross(x, y, terms)


def histogram(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Histoformer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    return _BACKENDS[current_backend()].histogram(x, terms)


def xca(x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
    """Cross-covariance attention with ExDA's primitives, (B, N, C) -> (B, N, C), N pixels of a map of ``size``."""
    return _BACKENDS[current_backend()].xca(x, size, terms)
