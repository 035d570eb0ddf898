"""Functions that do the same to all tensors of one kind: done once while it is written down, then as it is written.

What is allocated and started between a step's input and its output follows from sizes, strides and dtypes alone.
Working it out, with all checks, takes several times as long as starting the kernels. So the first call of a kind works
it out; later ones allocate, start, and do PyTorch's own operations on what came in.
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

from .kernel import Grid, Kernel, Start, current_stream, listening, watched
from .operator import computing
from .tiles import dot_precision

_MOST_RECORDS = 256

Tensors = tuple[Tensor | None, ...]
Slots = list[Tensor | None]
"""The inputs, then everything that is allocated; None before, and after its last use."""


class _StepByStep:
    depth = 0


_step_by_step = _StepByStep()


@contextmanager
def step_by_step() -> Iterator[None]:
    """A region, of all threads, in which everything is worked out: for who wants to see each kernel's start."""
    _step_by_step.depth += 1
    try:
        yield
    finally:
        _step_by_step.depth -= 1


class Recorded:
    """A function of tensors, some of them None, and of constants, without gradients; it returns one tensor.

    Args:
        function: called as ``function(tensors, *constants)``. What it does may depend on the tensors' sizes, strides,
            dtypes, devices and alignment, on the constants, and on the precision of products, but on nothing else.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._records: dict[tuple[Any, ...], _Record | None] = {}

    def __call__(self, tensors: Tensors, *constants: Any) -> Tensor:
        """``function(tensors, *constants)``."""
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
        if record is not None and not watched():
            return record(tensors)
        if key in self._records:
            return self._function(tensors, *constants)
        # One that comes in twice may be two the next time.
        told_apart = tuple([None if x is None else x.detach() for x in tensors])
        recorder = _Recorder(told_apart)
        with listening(recorder.started), recorder:
            out = self._function(told_apart, *constants)
        if len(self._records) >= _MOST_RECORDS:
            self._records.clear()
        self._records[key] = recorder.record(out)
        return out

    def forget(self) -> None:
        """All records."""
        self._records.clear()


class _Place(NamedTuple):
    """Where a tensor lies: in which slot's, from which of its elements on."""

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
"""Of the slots and the current stream."""


class _Record:
    """What a function does to tensors of one kind."""

    def __init__(self, actions: Sequence[tuple[Action, Sequence[int]]], slots: int, device: int, out: _Place) -> None:
        # With each action, what nobody needs after it.
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
    """Writes down what happens in its region."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self._count = len(tensors)
        self._inputs = len(tensors)
        self._steps: list[tuple[Action, set[int]]] = []
        self._places: dict[int, _Place] = {}
        # So that no other tensor takes its identity.
        self._known: list[Tensor] = []
        self._possible = True
        first = tensors[0]
        assert first is not None
        self._device = first.get_device()
        for slot, x in enumerate(tensors):
            if x is not None:
                self._put(x, slot)

    def record(self, out: Tensor) -> _Record | None:
        """Of all that happened; None if something cannot be done again."""
        if not self._possible or id(out) not in self._places:
            return None
        last = {slot: index for index, (_, used) in enumerate(self._steps) for slot in used}
        place = self._places[id(out)]
        actions = [
            (action, [s for s in used if s >= self._inputs and last[s] == index and s != place.slot])
            for index, (action, used) in enumerate(self._steps)
        ]
        return _Record(actions, self._count - self._inputs, self._device, place)

    def started(self, kernel: Kernel, start: Start | None, grid: Grid, arguments: Tensors, constants: Any) -> None:
        """Told of every kernel."""
        used = self._used(arguments)
        if start is None:
            given = [self._template(x) for x in arguments]
            self._steps.append((_Restart(kernel, grid, given, constants), used))
            return
        values = [None if isinstance(x, Tensor) else x for x in arguments]
        pointers = [
            (position, place.slot, place.offset * place.itemsize)
            for position, x in enumerate(arguments)
            if isinstance(x, Tensor) and (place := self._places.get(id(x)))
        ]
        self._steps.append((_Launch(start, start.programs(grid), start.values(values), pointers), used))

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        compute = computing(func)
        if compute is not None:
            with self:
                return compute(*args, **kwargs)
        # In an operator's body, `contiguous`, `to` and others arrive whole.
        with self, torch._C.DisableTorchFunction():
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        made = [x for x in tree_iter(out) if isinstance(x, Tensor)]
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        if func._schema.is_mutable:
            self._possible = False
        elif not all(self._is_part(x, given) for x in made):
            self._again(func, args, kwargs, given, made)
        return out

    def _is_part(self, x: Tensor, given: Sequence[Tensor]) -> bool:
        """Whether it lies in what was given, which need not be done again."""
        for each in given:
            if x is each:
                return True
            place = self._places.get(id(each))
            if place is not None and x.untyped_storage().data_ptr() == each.untyped_storage().data_ptr():
                self._put(x, place.slot, place.offset + int(x.storage_offset() - each.storage_offset()))
                return True
        return False

    def _again(
        self, func: OpOverload, args: Any, kwargs: dict[str, Any], given: Sequence[Tensor], made: Sequence[Tensor]
    ) -> None:
        used = self._used(given)
        arguments = tree_map_only(Tensor, self._template, args)
        if any(isinstance(x, Tensor) for x in kwargs.values()):
            self._possible = False
        slots = range(self._count, self._count + len(made))
        self._count += len(made)
        for x, slot in zip(made, slots, strict=True):
            self._put(x, slot)
        action = _Allocation if func is torch.ops.aten.empty.memory_format else _Operation
        self._steps.append((action(func, arguments, kwargs, slots), used | {*slots}))

    def _put(self, x: Tensor, slot: int, offset: int | None = None) -> None:
        place = _Place(slot, offset or 0, tuple(x.shape), x.stride(), x.element_size(), offset is None)
        self._places[id(x)] = place
        self._known.append(x)

    def _template(self, x: Any) -> Any:
        return self._places.get(id(x)) if isinstance(x, Tensor) else x

    def _used(self, given: Iterable[Any]) -> set[int]:
        """The slots that tensors lie in."""
        found = [self._places.get(id(x)) for x in given if isinstance(x, Tensor)]
        # One that came from nowhere is none of the function's arguments.
        self._possible = self._possible and None not in found
        return {place.slot for place in found if place is not None}


class _Launch:
    """A kernel, handed to the driver as Triton would, with addresses in place of tensors."""

    def __init__(
        self, start: Start, programs: tuple[int, int, int], values: list[Any], pointers: list[tuple[int, int, int]]
    ) -> None:
        self._launch, self._values, self._pointers = start.launch, values, pointers
        self._programs = programs
        self._about = (start.function, start.metadata, None, None, None)

    def __call__(self, slots: Slots, stream: int) -> None:
        values = self._values.copy()
        for position, slot, offset in self._pointers:
            values[position] = slots[slot].data_ptr() + offset  # type: ignore[union-attr]
        self._launch(*self._programs, stream, *self._about, *values)


class _Restart:
    """A kernel that Triton has to start."""

    def __init__(self, kernel: Kernel, grid: Grid, arguments: list[Any], constants: dict[str, Any]) -> None:
        self._kernel, self._grid, self._arguments, self._constants = kernel, grid, arguments, constants

    def __call__(self, slots: Slots, stream: int) -> None:
        arguments = [x(slots) if isinstance(x, _Place) else x for x in self._arguments]
        self._kernel.run(self._grid, *arguments, **self._constants)


class _Allocation:
    """Memory for one tensor."""

    def __init__(self, func: OpOverload, args: Any, kwargs: dict[str, Any], slots: Sequence[int]) -> None:
        (self._size,), (self._slot,), self._kwargs = args, slots, kwargs

    def __call__(self, slots: Slots, stream: int) -> None:
        slots[self._slot] = torch.empty(self._size, **self._kwargs)


class _Operation:
    """An operation of PyTorch's that makes something."""

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
    if type(x) is _Place:
        return x(slots)
    return [_filled(each, slots) for each in x] if type(x) is list else x
