"""The chosen backend; each thread and each asyncio task has its own choice.

``choice.current`` is a module attribute that a function computes (PEP 562). torch.compile sees a plain attribute and
guards on it, which calls the function again at every call of the compiled code. The choice itself is a context
variable, which torch.compile cannot read on every supported version of PyTorch.
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
    """The choice of one ``choose`` block; ``block`` tells apart blocks that chose the same name."""

    name: BackendName
    block: object


_entered: ContextVar[tuple[_Choice, ...]] = ContextVar("exda_primitives.backend", default=())


def __getattr__(name: str) -> BackendName:
    if name != "current":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entered = _entered.get()
    if not entered and torch._C._is_key_in_tls("context"):
        # In autograd's threads, where checkpointed modules run again: the choice of the thread that called backward.
        context = torch._C._get_obj_in_tls("context")
        # After a backward pass, some versions of PyTorch leave the key without a context in the calling thread.
        entered = () if context is None else context.get(_entered, ())
    return entered[-1].name if entered else "auto"


@contextmanager
def choose(name: BackendName) -> Iterator[None]:
    """Chooses a backend inside the block, for this thread or asyncio task."""
    choice = _Choice(name, object())
    _entered.set((*_entered.get(), choice))
    try:
        yield
    finally:
        # Only this block's choice is removed: blocks may be left in another order than they were entered in.
        _entered.set(tuple(each for each in _entered.get() if each is not choice))
