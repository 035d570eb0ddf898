"""Records which kernels a block launches with which arguments: on a CPU, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import JITFunction

from exda_primitives.ops import triton_or_torch as choice
from exda_primitives.ops.triton.kernel import Kernel
from exda_primitives.ops.triton.recorded import step_by_step
from exda_primitives.workbench.bench.precision import PRECISIONS

from . import blocks, kernels
from .blocks import Block

MULTIPROCESSORS = 132
"""Number of multiprocessors of an H100 and an H200. The number of parts that sums are split into depends on it."""

_ALIGNED, _UNALIGNED = 16, 3
_LONG = 2**33
"""Representatives of integer arguments: a multiple of 16, one that is not, and a summand that makes them 64-bit."""

Spec = dict[str, Any]
"""A launch, reduced to what Triton's compilation depends on, as plain data.

    {"module": "...gram", "kernel": "_gram_kernel", "arguments": {...}, "options": {"num_warps": 4}, "all": true}

An argument is ``{"dtype": "bfloat16", "aligned": true}`` (a tensor), ``{"type": "fp32"}`` (a Triton type) or a value;
an integer that is not a constant is replaced by one that Triton compiles the same kernel for. ``all``: compile every
configuration of a tuned kernel, not only the first.
"""


Started = Callable[[Kernel, tuple[Any, ...], dict[str, Any]], None]
"""Is called with a kernel, its positional arguments and its keyword arguments."""

Computed = Callable[[str, list[Tensor]], None]
"""Is called with an operation's name and all tensors that it reads or writes."""


@dataclass(frozen=True)
class Recording:
    """One run of a block whose launches are recorded.

    Attributes:
        block: the block and its map.
        precision: a name in ``bench.precision.PRECISIONS``.
        training: whether it has a backward pass; 16-bit formats then run under autocast.
        every: whether all configurations of its kernels are needed, not only the first.
    """

    block: Block
    precision: str
    training: bool = False
    every: bool = True


def record(recording: Recording) -> Iterator[Spec]:
    """Yields all launches of Triton kernels in the order in which they start; see ``run_once``."""
    specs: list[Spec] = []

    def started(kernel: Kernel, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        specs.append(spec(kernel, args, options) | {"all": recording.every and kernel.tunes})

    run_once(recording, started)
    yield from specs


def run_once(recording: Recording, started: Started, computed: Computed | None = None) -> None:
    """Runs the block without computing anything, for a GPU of ``MULTIPROCESSORS``.

    Args:
        recording: the block and how it is run.
        started: is called for every launch of a Triton kernel.
        computed: is called for each of PyTorch's own operations.

    Raises:
        RuntimeError: under Triton's interpreter, whose kernels do not know what they would be compiled for.
    """
    if kernels.JITTED is not JITFunction:
        raise RuntimeError("launches cannot be recorded under Triton's interpreter; unset TRITON_INTERPRET")
    precision = PRECISIONS[recording.precision]
    # Under autocast the weights and the input are float32.
    half = recording.training and precision.half
    dtype = torch.float32 if half else precision.dtype
    model = blocks.fused(recording.block).to(dtype).requires_grad_(recording.training)
    x = torch.empty(recording.block.shape, dtype=dtype, requires_grad=recording.training)
    with _told(started), as_on_a_gpu(precision.tf32):
        if recording.training:
            with _Nothing(computed):
                with torch.autocast("cpu", precision.dtype) if half else nullcontext():
                    out = model(x)
                out.backward(torch.empty_like(out))
        else:
            with torch.no_grad(), _Nothing(computed):
                model(x)


@contextmanager
def _told(started: Started) -> Iterator[None]:
    def run(kernel: Kernel, grid: object, *args: Any, **options: Any) -> None:
        started(kernel, args, options)

    with step_by_step(), mock.patch.object(Kernel, "run", run):
        yield


def spec(kernel: Kernel, args: tuple[Any, ...], options: Mapping[str, Any]) -> Spec:
    """Returns the spec of a launch, without ``all``."""
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **options}
    constants = {parameter.name for parameter in kernel.fn.params if parameter.is_constexpr}
    return {
        "module": kernel.fn.fn.__module__,
        "kernel": kernel.__name__,
        "arguments": {name: _plain(given[name], name in constants) for name in kernel.arg_names if name in given},
        "options": {name: given[name] for name in sorted(given.keys() - {*kernel.arg_names})},
    }


def _plain(value: Any, constant: bool) -> Any:
    if isinstance(value, Tensor):
        return {"dtype": str(value.dtype).removeprefix("torch."), "aligned": value.data_ptr() % _ALIGNED == 0}
    if isinstance(value, triton.language.dtype):
        return {"type": str(value)}
    # Triton specialises an integer argument on being 1, on divisibility by 16 and on needing 64 bits.
    if constant or isinstance(value, bool) or not isinstance(value, int) or value == 1:
        return value
    return (_LONG if value >= 2**31 else 0) + (_UNALIGNED if value % _ALIGNED else _ALIGNED)


def argument(plain: Any, tensor: Callable[[torch.dtype, bool], Tensor]) -> Any:
    """Returns the argument for the kernel that an argument in a spec describes.

    Args:
        plain: the argument in the spec.
        tensor: makes a tensor of a dtype whose address is a multiple of 16 bytes, or is not.
    """
    if isinstance(plain, dict) and "dtype" in plain:
        return tensor(getattr(torch, plain["dtype"]), plain["aligned"])
    return getattr(triton.language, _TYPES[plain["type"]]) if isinstance(plain, dict) else plain


_TYPES = {"fp32": "float32", "fp64": "float64"}


@contextmanager
def as_on_a_gpu(tf32: bool) -> Iterator[None]:
    """A region in which the library takes CPU tensors for tensors on a GPU of ``MULTIPROCESSORS``."""
    answers: dict[str, Callable[..., Any]] = {
        "device_unsupported_reason": lambda x: None,
        "dot_precision": lambda x: "tf32" if tf32 else "ieee",
        "_multiprocessors": lambda device: MULTIPROCESSORS,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(choice, "computes_steps", return_value="triton"))
        for name, answer in answers.items():
            asking = [module for module in kernels.modules() if hasattr(module, name)]
            if not asking:
                raise RuntimeError(
                    f"no module of exda_primitives.ops.triton has {name} any more; replace it in {__name__} by the "
                    "function that now asks for the device"
                )
            for module in asking:
                stack.enter_context(mock.patch.object(module, name, answer))
        yield


class _Nothing(TorchDispatchMode):
    """Skips large matrix products, whose outputs stay uninitialised; all else is copies and sums and runs."""

    def __init__(self, computed: Computed | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._computed = computed

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "exda":
            # The mode stays on inside the library's own operators, to see what they call.
            with self:
                return func.redispatch(DispatchKeySet(DispatchKey.CPU), *args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name in _FACTORS:
            a, b = (args[index] for index in _FACTORS[name])
            out = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=a.dtype)
        else:
            # Composite operations are decomposed, so that the operations they are made of are seen.
            with self, torch._C.DisableTorchFunction():
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            out = func(*args, **kwargs)
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if self._computed is not None and read and not func.is_view:
            self._computed(name, [*read, *(each for each in tree_leaves(out) if isinstance(each, Tensor))])
        return out


_FACTORS = {"bmm": (0, 1), "baddbmm": (1, 2)}
"""Operation -> positions of the two factors among its arguments."""
