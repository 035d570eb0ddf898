"""Which implementation computes: an operation has a function for each backend, and one switch chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, ParamSpec, get_args

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from . import auto, chosen, reference, triton_or_torch
from . import torch as concat_free
from .chosen import BackendName

Arguments = ParamSpec("Arguments")


class Operation(Generic[Arguments]):
    """What an attention computes on tensors, by a function for each backend; a call takes that of ``backend``.

    A new attention makes one of its own, unless it computes what one of these does. All functions take and return the
    same.

    Args:
        reference: the formula as it is printed, in plain PyTorch: the oracle of the others.
        torch: faster, in plain PyTorch.
        triton: on kernels where they apply; by default as ``torch``.
        auto: where no backend is asked for; by default as ``torch``.

    Attributes:
        functions: by the name of the backend.

    Example:
        >>> import torch, exda_primitives as exda
        >>> from exda_primitives.ops import Operation
        >>> scaled = Operation(reference=lambda x: x * 2, torch=lambda x: x + x)
        >>> with exda.backend("reference"):
        ...     scaled(torch.ones(1))
        tensor([2.])
    """

    def __init__(
        self,
        reference: Callable[Arguments, Tensor],
        torch: Callable[Arguments, Tensor],
        triton: Callable[Arguments, Tensor] | None = None,
        auto: Callable[Arguments, Tensor] | None = None,
    ) -> None:
        self.functions: dict[BackendName, Callable[Arguments, Tensor]] = {
            "auto": auto or torch,
            "reference": reference,
            "torch": torch,
            "triton": triton or torch,
        }

    def __call__(self, *arguments: Arguments.args, **keywords: Arguments.kwargs) -> Tensor:
        """What the function of the backend that is chosen here and now returns."""
        return self.functions[current_backend()](*arguments, **keywords)


_NAMES: tuple[BackendName, ...] = get_args(BackendName)
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
    if name not in _NAMES:
        raise ValueError(f"exda.backend({name!r}): unknown backend; known are {', '.join(map(repr, _NAMES))}")
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


mdta = Operation(reference.mdta, concat_free.mdta, triton_or_torch.mdta, auto.mdta)
"""Restormer's attention with ExDA's primitives: x (B, C, H, W), ``PackedQKVTerms`` -> (B, C, H, W)."""

cross = Operation(reference.cross, concat_free.cross, triton_or_torch.cross)
"""Cross attention with ExDA's primitives: x, y (B, C, H, W), ``CrossTerms`` -> (B, C, H, W)."""

histogram = Operation(reference.histogram, concat_free.histogram)
"""Histoformer's attention with ExDA's primitives: x (B, C, H, W), ``PackedQKVTerms`` -> (B, C, H, W)."""

window = Operation(reference.window, concat_free.window)
"""Window attention with ExDA's value: x (B, N, C), the (H, W) of the windows whose N pixels these are, ``WindowTerms``
-> (B, N, C)."""

xca = Operation(reference.xca, concat_free.xca)
"""Cross-covariance attention with ExDA's primitives: x (B, N, C), the (H, W) of the map whose N pixels these are,
``LinearTerms`` -> (B, N, C)."""
