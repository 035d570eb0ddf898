"""Counts, on the CPU, the kernels that Python would launch on a GPU (PyTorch's and Triton's), and waits for the GPU.

with Launches() as launches:
    block(x)
launches.kernels, launches.waits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import torch
from torch._C import DispatchKey, DispatchKeySet
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import GridExecutor

# Operations that are no views but launch no kernel: they allocate memory or change a tensor's metadata.
_WITHOUT_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "resize_",
    "set_",
}
# Operations with two kernels on a GPU: one first writes the summand into the output, or fills the border.
_SEVERAL_KERNELS = {"baddbmm": 2, "constant_pad_nd": 2}
# Operations during which Python waits for a result of the GPU, or for a copy to it (`lift_fresh`: torch.tensor).
_WAITS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
}
# Methods that read values and that PyTorch runs without its dispatcher if the tensor is on the CPU.
_VALUE_READS = {"cpu", "item", "numpy", "tolist", "__array__"}


class Launches(TorchDispatchMode):
    """Counts the kernels launched in its ``with`` block, under Triton's interpreter.

    Attributes:
        kernels: number of launches of each kernel: Triton's by the name of their function, PyTorch's as ``aten.name``.
        operators: number of calls of each of the library's own operators; every call costs time in Python.
        waits: names of the operations that waited for the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.waits: list[str] = []
        self._interpreting = False
        self._value_reads = _ValueReads(self)
        self._executor = mock.patch.object(GridExecutor, "__call__", self._counting(GridExecutor.__call__))

    def __enter__(self) -> Launches:
        # Entered again for an operator's body: PyTorch switches the mode off while it handles an operation.
        if not self._value_reads.entered:
            self._executor.start()
        self._value_reads.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._value_reads.__exit__(*error)
        if not self._value_reads.entered:
            self._executor.stop()

    def _counting(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def counted(executor: GridExecutor, *arguments: Any, **options: Any) -> Any:
            if options.get("warmup"):
                return execute(executor, *arguments, **options)
            self.kernels[executor.fn.__name__] += 1
            # The interpreter's own tensor operations do not count.
            self._interpreting = True
            try:
                return execute(executor, *arguments, **options)
            finally:
                self._interpreting = False

        return counted

    def wait(self, name: str) -> None:
        if not self._interpreting:
            self.waits.append(name)

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if self._interpreting:
            return func(*args, **kwargs)
        if func.namespace == "exda":
            self.operators[name] += 1
            with self:
                return func.redispatch(DispatchKeySet(DispatchKey.CPU), *args, **kwargs)
        # In an operator's body, composite operations (`contiguous`, `to`) arrive undecomposed.
        with self, torch._C.DisableTorchFunction():
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        if name in _WAITS or _is_boolean_indexing(name, args) or _crosses_devices(out, args):
            self.wait(f"aten.{name}")
        elif not (func.is_view or name in _WITHOUT_KERNEL or _is_empty(out)):
            self.kernels[f"aten.{name}"] += _SEVERAL_KERNELS.get(name, 1)
        return out


class _ValueReads(TorchFunctionMode):
    """Notes reads of a tensor's values that do not pass through the dispatcher."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches
        self.entered = 0

    def __enter__(self) -> _ValueReads:
        self.entered += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.entered -= 1

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _VALUE_READS and func is getattr(torch.Tensor, name):
            self.launches.wait(f"Tensor.{name}")
        return func(*args, **(kwargs or {}))


def _is_boolean_indexing(name: str, args: tuple[Any, ...]) -> bool:
    return name in {"index", "index_put", "index_put_"} and any(
        index is not None and index.dtype is torch.bool for index in args[1]
    )


def _crosses_devices(out: Any, args: tuple[Any, ...]) -> bool:
    """Whether tensors of different device types are involved: a copy between devices."""
    kinds = {each.device.type for each in (out, *args) if isinstance(each, torch.Tensor)}
    return len(kinds) > 1


def _is_empty(out: Any) -> bool:
    return isinstance(out, torch.Tensor) and out.numel() == 0
