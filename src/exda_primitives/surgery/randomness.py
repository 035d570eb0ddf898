"""Random numbers of one's own, for code that draws from the generator that everybody shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

_aten = torch.ops.aten


class OwnRandomNumbers(TorchDispatchMode):
    """What draws random numbers on the CPU inside the block, in this thread, draws them from ``generator``.

    Two blocks give the same numbers, and nobody else's are touched: seeding and restoring the global generator repeats
    numbers in other threads. What is given a generator keeps it.

    Raises (where it draws):
        NotImplementedError: for an operation that cannot be given a generator.
    """

    _LIKE: ClassVar[Mapping[Any, Any]] = {
        _aten.rand_like.default: Tensor.uniform_,
        _aten.randn_like.default: Tensor.normal_,
    }

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = torch.Generator().manual_seed(0)

    def __enter__(self) -> OwnRandomNumbers:
        # Not the base's, which tells torch.compile in all threads that there is a mode.
        _push_mode(self)
        return self

    def __exit__(self, *_: object) -> None:
        _pop_mode()

    def drew_as(self, other: OwnRandomNumbers) -> bool:
        """Whether the same numbers were drawn in the other's block."""
        return torch.equal(self.generator.get_state(), other.generator.get_state())

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the operation, with the generator where it draws."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func._tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if func in self._LIKE:
            return self._LIKE[func](torch.empty_like(*args, **kwargs), generator=self.generator)
        name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
        func = getattr(func.overloadpacket, name, func)
        arguments = {argument.name: position for position, argument in enumerate(func._schema.arguments)}
        if "generator" in arguments:
            return func(*args, **kwargs, generator=self.generator)
        # Attention, whose dropout is off where it is not named.
        position = arguments.get("dropout_p", -1)
        if position < 0 or kwargs.get("dropout_p") or args[position : position + 1] > (0.0,):
            raise NotImplementedError(f"{func} draws random numbers, and not from a generator that it could be given")
        return func(*args, **kwargs)
