"""Which kernels a block starts on which arguments: recorded on a CPU, without computing anything."""

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
"""Of an H100 and an H200: into how many parts sums are cut depends on it."""

_ALIGNED, _UNALIGNED = 16, 3
_LONG = 2**33

Spec = dict[str, Any]
"""A launch, of which so much is kept as Triton compiles for: plain data.

    {"module": "...gram", "kernel": "_gram_kernel", "arguments": {...}, "options": {"num_warps": 4}, "all": true}

An argument is ``{"dtype": "bfloat16", "aligned": true}`` (a tensor), ``{"type": "fp32"}`` (a type of Triton's) or the
value itself, of an integer that is no constant one of the same kind. ``all``: compile each configuration of a kernel
that is tuned, and not the first one alone.
"""


Started = Callable[[Kernel, tuple[Any, ...], dict[str, Any]], None]
"""Told of a kernel, its arguments, and those given by name."""

Computed = Callable[[str, list[Tensor]], None]
"""Told of an operation's name, and of all tensors that it reads or writes."""


@dataclass(frozen=True)
class Recording:
    """A block that is run once.

    Attributes:
        block: with its map.
        precision: a name in ``bench.precision.PRECISIONS``.
        training: with a backward pass, in 16 bits under autocast.
        every: whether all configurations of its kernels are needed, and not the first one alone.
    """

    block: Block
    precision: str
    training: bool = False
    every: bool = True


def record(recording: Recording) -> Iterator[Spec]:
    """All launches of Triton kernels in the order in which they start; see ``run_once``."""
    specs: list[Spec] = []

    def started(kernel: Kernel, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        specs.append(spec(kernel, args, options) | {"all": recording.every and kernel.tunes})

    run_once(recording, started)
    yield from specs


def run_once(recording: Recording, started: Started, computed: Computed | None = None) -> None:
    """Runs the block without computing anything, for a GPU of ``MULTIPROCESSORS``.

    Args:
        recording: the block.
        started: told of every launch of a Triton kernel.
        computed: told of each of PyTorch's own operations.

    Raises:
        RuntimeError: under Triton's interpreter, which keeps nothing of what a kernel is compiled for.
    """
    if kernels.JITTED is not JITFunction:
        raise RuntimeError("launches cannot be recorded under Triton's interpreter; unset TRITON_INTERPRET")
    precision = PRECISIONS[recording.precision]
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
    """Of a launch; whether all configurations are needed is not said."""
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
    # One is a constant to Triton; of the others it looks at the size and the factor 16.
    if constant or isinstance(value, bool) or not isinstance(value, int) or value == 1:
        return value
    return (_LONG if value >= 2**31 else 0) + (_UNALIGNED if value % _ALIGNED else _ALIGNED)


def argument(plain: Any, tensor: Callable[[torch.dtype, bool], Tensor]) -> Any:
    """What the kernel is given, of an argument in a spec.

    Args:
        plain: the argument.
        tensor: makes one of a dtype, whose address is a multiple of 16 bytes or not.
    """
    if isinstance(plain, dict) and "dtype" in plain:
        return tensor(getattr(torch, plain["dtype"]), plain["aligned"])
    return getattr(triton.language, _TYPES[plain["type"]]) if isinstance(plain, dict) else plain


_TYPES = {"fp32": "float32", "fp64": "float64"}


@contextmanager
def as_on_a_gpu(tf32: bool) -> Iterator[None]:
    """Where the library asks for the device, it is told of one."""
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
                    f"no module of the kernels has {name} any more; tell {__name__} who knows the device"
                )
            for module in asking:
                stack.enter_context(mock.patch.object(module, name, answer))
        yield


class _Nothing(TorchDispatchMode):
    """Large products are not computed: their outputs are as they were found. The rest is copies and sums."""

    def __init__(self, computed: Computed | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._computed = computed

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "exda":
            # To see what the library's own operators call.
            with self:
                return func.redispatch(DispatchKeySet(DispatchKey.CPU), *args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name in _FACTORS:
            a, b = (args[index] for index in _FACTORS[name])
            out = torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=a.dtype)
        else:
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
"""Where the factors stand."""
