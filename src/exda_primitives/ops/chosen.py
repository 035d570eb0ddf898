"""Which backend is chosen, here and now: each thread and each task of asyncio has its own choice.

``chosen.current`` is an attribute of the module that a function computes (PEP 562): torch.compile takes it for a plain
attribute, guards on it, and so asks the function again at every call. It cannot look into a context variable on every
supported version of PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

import torch

BackendName = Literal["auto", "reference", "torch", "triton"]

current: BackendName


class _Choice(NamedTuple):
    """Of one block; two blocks never hold the same."""

    name: BackendName
    block: object


_entered: ContextVar[tuple[_Choice, ...]] = ContextVar("exda_primitives.backend", default=())


def __getattr__(name: str) -> BackendName:
    if name != "current":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entered = _entered.get()
    if not entered and torch._C._is_key_in_tls("context"):
        # In a thread of autograd's: that of who called backward, for checkpointed modules that run again there.
        context = torch._C._get_obj_in_tls("context")
        # After a backward pass, some versions of PyTorch leave the key without a context in who called it.
        entered = () if context is None else context.get(_entered, ())
    return entered[-1].name if entered else "auto"


@contextmanager
def choose(name: BackendName) -> Iterator[None]:
    """For the length of the block."""
    choice = _Choice(name, object())
    _entered.set((*_entered.get(), choice))
    try:
        yield
    finally:
        # Not what was there before: blocks may be left in another order than they were entered in.
        _entered.set(tuple(each for each in _entered.get() if each is not choice))
