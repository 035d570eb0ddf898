"""A private random generator for code that draws from the global one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

_aten = torch.ops.aten


class OwnRandomNumbers(TorchDispatchMode):
    """Within the block and in this thread, operations on the CPU draw random numbers from ``generator``.

    Every block draws the same numbers, and the global generator is not touched. (Seeding and restoring that one instead
    would repeat numbers in other threads.) An operation that is called with a generator keeps it.

    Raises (where it draws):
        NotImplementedError: for an operation that cannot be given a generator.
    """

    # These take no generator: the tensor is created, then filled in place.
    _LIKE: ClassVar[Mapping[Any, Any]] = {
        _aten.rand_like.default: Tensor.uniform_,
        _aten.randn_like.default: Tensor.normal_,
    }

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = torch.Generator().manual_seed(0)

    def __enter__(self) -> OwnRandomNumbers:
        # Not the base class's method, which announces a mode to torch.compile in all threads.
        _push_mode(self)
        return self

    def __exit__(self, *_: object) -> None:
        _pop_mode()

    def drew_as(self, other: OwnRandomNumbers) -> bool:
        """Whether both blocks drew as many numbers: their generators are in the same state."""
        return torch.equal(self.generator.get_state(), other.generator.get_state())

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the operation, with ``generator`` if it draws random numbers."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func._tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if func in self._LIKE:
            return self._LIKE[func](torch.empty_like(*args, **kwargs), generator=self.generator)
        # The overload that takes a generator: ``generator`` for ``default``, ``X_generator`` for ``X``.
        name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
        func = getattr(func.overloadpacket, name, func)
        arguments = {argument.name: position for position, argument in enumerate(func._schema.arguments)}
        if "generator" in arguments:
            return func(*args, **kwargs, generator=self.generator)
        # Scaled dot-product attention takes no generator, and draws only with dropout, which is off by default.
        position = arguments.get("dropout_p", -1)
        if position < 0 or kwargs.get("dropout_p") or args[position : position + 1] > (0.0,):
            raise NotImplementedError(f"{func} draws random numbers, and not from a generator that it could be given")
        return func(*args, **kwargs)
