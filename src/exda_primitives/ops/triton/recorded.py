"""Records what a function does to tensors of one kind, and replays it on others of that kind.

The allocations and kernels between a step's input and its output follow from sizes, strides and dtypes alone. Working
them out, with all checks, takes several times as long as starting the kernels. So the first call of a kind runs the
function and records it; later ones only allocate, start kernels, and apply PyTorch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from .kernel import CompiledLaunch, Grid, Kernel, current_stream, on_launch, profiler_active
from .operator import computing
from .tiles import dot_precision

# Records that a function keeps; at the limit all are dropped, so that ever new sizes do not fill the memory.
_MOST_RECORDS = 256

Tensors = tuple[Tensor | None, ...]
Slots = list[Tensor | None]
"""A call's tensors: the inputs, then everything it allocates, None before its allocation and after its last use."""


class _StepByStep:
    depth = 0


_step_by_step = _StepByStep()


@contextmanager
def step_by_step() -> Iterator[None]:
    """Replays nothing inside the block, in any thread: for callers that have to see how each kernel is started."""
    _step_by_step.depth += 1
    try:
        yield
    finally:
        _step_by_step.depth -= 1


class Recorded:
    """Records and replays a function of tensors, some of them None, and constants; no gradients.

    Args:
        function: called as ``function(tensors, *constants)``; returns one tensor. Its operations may depend on the
            tensors' sizes, strides, dtypes, devices and alignment, on the constants, and on the precision of products,
            but on nothing else: never on the tensors' values.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._records: dict[tuple[Any, ...], _Record | None] = {}

    def __call__(self, tensors: Tensors, *constants: Any) -> Tensor:
        """Returns ``function(tensors, *constants)``: replayed where such a call was recorded, else computed."""
        if _step_by_step.depth:
            return self._function(tensors, *constants)
        first = tensors[0]
        assert first is not None
        key = (
            constants,
            dot_precision(first),
            *[
                None if x is None else (x.shape, x.stride(), x.dtype, x.get_device(), x.data_ptr() % 16)
                for x in tensors
            ],
        )
        record = self._records.get(key)
        if record is not None and not profiler_active():
            return record(tensors)
        if key in self._records:
            # It cannot be replayed, or a profiler has to see its kernels through Triton.
            return self._function(tensors, *constants)
        # New tensors on the same memory: an argument that is given twice here may be two tensors in a later call.
        distinct = tuple([None if x is None else x.detach() for x in tensors])
        recorder = _Recorder(distinct)
        with on_launch(recorder.started), recorder:
            out = self._function(distinct, *constants)
        if len(self._records) >= _MOST_RECORDS:
            self._records.clear()
        self._records[key] = recorder.record(out)
        return out

    def forget(self) -> None:
        """Drops all records."""
        self._records.clear()


class _TensorView(NamedTuple):
    """Where a tensor's elements are: a slot's tensor or a view of it.

    Attributes:
        slot: index into the slots.
        offset: elements between the start of the slot's tensor and this one's.
        size: shape.
        stride: in elements.
        itemsize: bytes of an element.
        whole: whether it is the slot's tensor itself.
    """

    slot: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    itemsize: int
    whole: bool

    def __call__(self, slots: Slots) -> Tensor:
        held = slots[self.slot]
        assert held is not None
        return held if self.whole else held.as_strided(self.size, self.stride, held.storage_offset() + self.offset)


Action = Callable[[Slots, int], object]
"""Called with the slots and the current stream."""


class _Record:
    """Replays a function on tensors of one kind."""

    def __init__(
        self, actions: Sequence[tuple[Action, Sequence[int]]], slots: int, device: int, out: _TensorView
    ) -> None:
        # Each action comes with the slots that no later one uses, which are freed after it.
        self._actions, self._device, self._out = actions, device, out
        self._empty: Slots = [None] * slots

    def __call__(self, tensors: Tensors) -> Tensor:
        if self._device >= 0 and self._device != torch.cuda.current_device():
            with torch.cuda.device(self._device):
                return self(tensors)
        slots = [*tensors, *self._empty]
        stream = current_stream(self._device)
        for action, done in self._actions:
            action(slots, stream)
            for slot in done:
                slots[slot] = None
        return self._out(slots)


class _Recorder(TorchDispatchMode):
    """Records the kernels, allocations and PyTorch operations of its block, each under the slots it uses."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self._count = len(tensors)
        self._inputs = len(tensors)
        self._steps: list[tuple[Action, set[int]]] = []
        self._views: dict[int, _TensorView] = {}
        # Views are found by `id`, which Python would give to another tensor once this one is gone.
        self._known: list[Tensor] = []
        # Whether all that happened so far can be replayed.
        self._replayable = True
        first = tensors[0]
        assert first is not None
        self._device = first.get_device()
        for slot, x in enumerate(tensors):
            if x is not None:
                self._put(x, slot)

    def record(self, out: Tensor) -> _Record | None:
        """Returns the record of the block; None if something in it cannot be replayed."""
        if not self._replayable or id(out) not in self._views:
            return None
        last = {slot: index for index, (_, used) in enumerate(self._steps) for slot in used}
        view = self._views[id(out)]
        # The inputs belong to the caller and the output is returned: other slots are freed after their last use.
        actions = [
            (action, [s for s in used if s >= self._inputs and last[s] == index and s != view.slot])
            for index, (action, used) in enumerate(self._steps)
        ]
        return _Record(actions, self._count - self._inputs, self._device, view)

    def started(
        self, kernel: Kernel, launch: CompiledLaunch | None, grid: Grid, arguments: Tensors, constants: Any
    ) -> None:
        """Records the start of a kernel; ``kernel.on_launch`` calls it for each."""
        used = self._used(arguments)
        if launch is None:
            given = [self._template(x) for x in arguments]
            self._steps.append((_Restart(kernel, grid, given, constants), used))
            return
        values = [None if isinstance(x, Tensor) else x for x in arguments]
        pointers = [
            (position, view.slot, view.offset * view.itemsize)
            for position, x in enumerate(arguments)
            if isinstance(x, Tensor) and (view := self._views.get(id(x)))
        ]
        self._steps.append((_Launch(launch, launch.programs(grid), launch.values(values), pointers), used))

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # PyTorch switches the mode off in here: `with self` records what happens inside of the operation.
        compute = computing(func)
        if compute is not None:
            # Of an operator of ours, the kernels and operations in its body are recorded.
            with self:
                return compute(*args, **kwargs)
        # Inside an operator's body, `contiguous`, `to` and other composite operations arrive undecomposed.
        with self, torch._C.DisableTorchFunction():
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        made = [x for x in tree_iter(out) if isinstance(x, Tensor)]
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        if func._schema.is_mutable:
            # Only what returns something new is replayed.
            self._replayable = False
        elif not all(self._is_view(x, given) for x in made):
            self._record_operation(func, args, kwargs, given, made)
        return out

    def _is_view(self, x: Tensor, given: Sequence[Tensor]) -> bool:
        """Whether ``x`` is a given tensor or a view of one; a replay needs no more than where it is."""
        for each in given:
            if x is each:
                return True
            view = self._views.get(id(each))
            if view is not None and x.untyped_storage().data_ptr() == each.untyped_storage().data_ptr():
                self._put(x, view.slot, view.offset + int(x.storage_offset() - each.storage_offset()))
                return True
        return False

    def _record_operation(
        self, func: OpOverload, args: Any, kwargs: dict[str, Any], given: Sequence[Tensor], made: Sequence[Tensor]
    ) -> None:
        """Records an operation whose outputs ``made`` are new tensors."""
        used = self._used(given)
        arguments = tree_map_only(Tensor, self._template, args)
        # Only positional arguments are filled in at a replay.
        if any(isinstance(x, Tensor) for x in kwargs.values()):
            self._replayable = False
        slots = range(self._count, self._count + len(made))
        self._count += len(made)
        for x, slot in zip(made, slots, strict=True):
            self._put(x, slot)
        action = _Allocation if func is torch.ops.aten.empty.memory_format else _Operation
        self._steps.append((action(func, arguments, kwargs, slots), used | {*slots}))

    def _put(self, x: Tensor, slot: int, offset: int | None = None) -> None:
        """Notes where ``x`` is: without an offset, it is the slot's own tensor."""
        view = _TensorView(slot, offset or 0, tuple(x.shape), x.stride(), x.element_size(), offset is None)
        self._views[id(x)] = view
        self._known.append(x)

    def _template(self, x: Any) -> Any:
        """Returns the view that stands for a tensor, anything else as it is."""
        return self._views.get(id(x)) if isinstance(x, Tensor) else x

    def _used(self, given: Iterable[Any]) -> set[int]:
        """Returns the slots of these tensors; if one is unknown, nothing can be replayed."""
        found = [self._views.get(id(x)) for x in given if isinstance(x, Tensor)]
        # Neither an argument nor made from one: a later call would not have it.
        self._replayable = self._replayable and None not in found
        return {view.slot for view in found if view is not None}


class _Launch:
    """Launches a kernel through the driver, as Triton would, with addresses in place of tensors.

    Args:
        launch: of the compiled kernel.
        programs: in each dimension.
        values: that the launch takes, None in place of each tensor.
        pointers: position among the values, slot, and offset in bytes of each tensor.
    """

    def __init__(
        self,
        launch: CompiledLaunch,
        programs: tuple[int, int, int],
        values: list[Any],
        pointers: list[tuple[int, int, int]],
    ) -> None:
        self._launch, self._values, self._pointers = launch.launch, values, pointers
        self._programs = programs
        self._arguments = (launch.function, launch.metadata, None, None, None)

    def __call__(self, slots: Slots, stream: int) -> None:
        values = self._values.copy()
        for position, slot, offset in self._pointers:
            values[position] = slots[slot].data_ptr() + offset  # type: ignore[union-attr]
        self._launch(*self._programs, stream, *self._arguments, *values)


class _Restart:
    """Starts a kernel through Triton."""

    def __init__(self, kernel: Kernel, grid: Grid, arguments: list[Any], constants: dict[str, Any]) -> None:
        self._kernel, self._grid, self._arguments, self._constants = kernel, grid, arguments, constants

    def __call__(self, slots: Slots, stream: int) -> None:
        arguments = [x(slots) if isinstance(x, _TensorView) else x for x in self._arguments]
        self._kernel.run(self._grid, *arguments, **self._constants)


class _Allocation:
    """Allocates one tensor, uninitialised."""

    def __init__(self, func: OpOverload, args: Any, kwargs: dict[str, Any], slots: Sequence[int]) -> None:
        (self._size,), (self._slot,), self._kwargs = args, slots, kwargs

    def __call__(self, slots: Slots, stream: int) -> None:
        slots[self._slot] = torch.empty(self._size, **self._kwargs)


class _Operation:
    """Applies an operation of PyTorch's that returns new tensors."""

    def __init__(self, func: OpOverload, args: Any, kwargs: dict[str, Any], slots: Sequence[int]) -> None:
        self._func, self._args, self._kwargs, self._slots = func, args, kwargs, slots

    def __call__(self, slots: Slots, stream: int) -> None:
        out = self._func(*[_filled(x, slots) for x in self._args], **self._kwargs)
        if len(self._slots) == 1:
            slots[self._slots[0]] = out
        else:
            for slot, each in zip(self._slots, out, strict=True):
                slots[slot] = each


def _filled(x: Any, slots: Slots) -> Any:
    """Returns ``x`` with tensors in place of views, inside lists too."""
    if type(x) is _TensorView:
        return x(slots)
    return [_filled(each, slots) for each in x] if type(x) is list else x
