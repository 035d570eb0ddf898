"""What a GPU would be told to do: every kernel that Python starts, PyTorch's and Triton's, and what waits for the GPU.

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

# Neither views nor kernels: memory is taken, or something is asked.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "resize_", "set_"}
# On a GPU, what is added is copied or expanded into the output first, or the border is filled.
_KERNELS = {"baddbmm": 2, "constant_pad_nd": 2}
# Python goes on when the GPU has answered, or has taken numbers from the host's memory (`lift_fresh`: torch.tensor).
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
# PyTorch answers these without its dispatcher where the tensor is on the CPU.
_ANSWERS = {"cpu", "item", "numpy", "tolist", "__array__"}


class Launches(TorchDispatchMode):
    """Counts the kernels that start in its region, under Triton's interpreter.

    Attributes:
        kernels: how often each kernel started: Triton's by the name of their function, PyTorch's as ``aten.name``.
        operators: how often each of the library's own operators was called, each of which takes Python's time.
        waits: what waited for the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.waits: list[str] = []
        self._interpreting = False
        self._answers = _Answers(self)
        self._executor = mock.patch.object(GridExecutor, "__call__", self._counting(GridExecutor.__call__))

    def __enter__(self) -> Launches:
        # An operator's body enters again: the mode is off while it handles something.
        if not self._answers.entered:
            self._executor.start()
        self._answers.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._answers.__exit__(*error)
        if not self._answers.entered:
            self._executor.stop()

    def _counting(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def counted(executor: GridExecutor, *arguments: Any, **options: Any) -> Any:
            if options.get("warmup"):
                return execute(executor, *arguments, **options)
            self.kernels[executor.fn.__name__] += 1
            # What the interpreter does to the tensors is its own affair.
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
        # In an operator's body, `contiguous`, `to` and others arrive whole.
        with self, torch._C.DisableTorchFunction():
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        if name in _WAITS or _chosen_by_bool(name, args) or _crosses(out, args):
            self.wait(f"aten.{name}")
        elif not (func.is_view or name in _FREE or _is_empty(out)):
            self.kernels[f"aten.{name}"] += _KERNELS.get(name, 1)
        return out


class _Answers(TorchFunctionMode):
    """Notes Python's questions to a tensor that the dispatcher does not hear of."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches
        self.entered = 0

    def __enter__(self) -> _Answers:
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
        if name in _ANSWERS and func is getattr(torch.Tensor, name):
            self.launches.wait(f"Tensor.{name}")
        return func(*args, **(kwargs or {}))


def _chosen_by_bool(name: str, args: tuple[Any, ...]) -> bool:
    return name in {"index", "index_put", "index_put_"} and any(
        index is not None and index.dtype is torch.bool for index in args[1]
    )


def _crosses(out: Any, args: tuple[Any, ...]) -> bool:
    """Whether something was copied from one kind of device to another."""
    kinds = {each.device.type for each in (out, *args) if isinstance(each, torch.Tensor)}
    return len(kinds) > 1


def _is_empty(out: Any) -> bool:
    return isinstance(out, torch.Tensor) and out.numel() == 0
