"""Operations with one function for each backend, and the switch that chooses the backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, ParamSpec, get_args

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from . import auto, choice, reference, triton_or_torch
from . import torch as concat_free
from .choice import BackendName

Arguments = ParamSpec("Arguments")


class Operation(Generic[Arguments]):
    """What an attention computes on tensors: one function for each backend; a call runs that of the chosen backend.

    A new attention needs an operation of its own, unless it computes what an existing one does. All functions take the
    same arguments and return the same tensor.

    Args:
        reference: the formula as it is printed, in plain PyTorch: the oracle that the others are tested against.
        torch: a faster form in plain PyTorch.
        triton: on kernels where they apply; ``torch`` by default.
        auto: where no backend was chosen; ``torch`` by default.

    Attributes:
        functions: the functions by the name of their backend.

    Examples:
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
        """Calls the function of the backend that is chosen in this thread or task."""
        return self.functions[current_backend()](*arguments, **keywords)


_NAMES: tuple[BackendName, ...] = get_args(BackendName)
# The backend of a `backend` block inside a compiled function: torch.compile traces a global, but no context variable.
# None outside of compilation.
_in_graph: BackendName | None = None


@contextmanager
def backend(name: BackendName) -> Iterator[None]:
    """Computes every ExDA attention inside the block with the named backend.

    Each thread and each asyncio task has its own choice. A new thread starts with ``"auto"``; replicas of DataParallel
    start with their caller's choice. A compiled function is compiled once for each backend it runs under.

    Args:
        name: ``"reference"`` (the printed formulas, the oracle), ``"torch"`` (concat-free), ``"triton"`` (concat-free
            on kernels for CUDA GPUs of compute capability 8.0 and newer, and as ``"torch"`` wherever they do not
            apply), or ``"auto"``, which is ``"torch"`` until the kernels have proven themselves on GPUs; on a CPU, and
            without gradients, it computes larger maps strip by strip. Blocks that ``exda_primitives.fuse`` put in
            place are fused under ``"auto"``, on a CPU by PyTorch's own operations, and under ``"triton"``, by kernels
            alone.

    Raises:
        ValueError: for an unknown name, listing the known ones.

    Examples:
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
        with choice.choose(name):
            yield
        return
    previous, _in_graph = _in_graph, name
    try:
        yield
    finally:
        _in_graph = previous


def current_backend() -> BackendName:
    """Returns the name that the innermost ``backend`` block chose, or ``"auto"``."""
    if is_dynamo_compiling() and _in_graph is not None:
        return _in_graph
    return choice.current


def fuses() -> bool:
    """Whether fused blocks may compute their steps without calling their modules."""
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
"""Cross-covariance attention with ExDA's primitives: x (B, N, C), the size (H, W) of the map with these N = H*W pixels,
``LinearTerms`` -> (B, N, C)."""
