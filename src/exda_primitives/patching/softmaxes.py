"""Runs a module and notes the matrices that it takes a softmax of; finds the size of map that a module is built for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..surgery.randomness import OwnRandomNumbers

_STEPS = 4
"""Most attempts at a module's only size: one a side, and as many again for what else fixes them."""
_LONGEST = 256
"""A module whose layers ask for a longer side than this is not called with it: it would take too long."""

Size = tuple[int, int]


class Call(NamedTuple):
    """What a call of a module did.

    Attributes:
        softmaxes: the shape of every matrix that it took a softmax of, even if it raised later.
        returned: whether it returned.
        operations: how many operations it did.
        unequal: lengths that have to be equal and are not, in the operation that raised, if that tells.
    """

    softmaxes: list[tuple[int, ...]]
    returned: bool
    operations: int
    unequal: list[tuple[int, int]]


def call(module: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """Calls a module, which may raise: it takes another layout, other sizes or another number of arguments."""
    mode = _Softmaxes()
    try:
        with mode:
            module(*inputs)
    except Exception:
        return Call(mode.shapes, False, mode.operations, mode.unequal)
    return Call(mode.shapes, True, mode.operations, [])


def only_size(called: Callable[[Size], Call], size: Size) -> tuple[Size, Call] | None:
    """Finds (H, W) for a module that takes only maps of one size; None if it is not found.

    Linear layers over a map's side, or an embedding of positions, fix the size. The operation that fails tells by how
    much a side is too short or too long; whether that is the height or the width shows in the next call, which gets
    further.

    Args:
        called: calls the module with maps of a size.
        size: the size at which it fails.
    """
    result = called(size)
    for _ in range(_STEPS):
        if result.returned or result.softmaxes:
            return size, result
        tried = [(resized, called(resized)) for resized in dict.fromkeys(_resized(size, result.unequal))]
        further = [each for each in tried if each[1].operations > result.operations]
        if not further:
            return None
        size, result = max(further, key=lambda each: each[1].operations)
    return None


def _resized(size: Size, unequal: Sequence[tuple[int, int]]) -> Iterator[Size]:
    """Yields sizes at which unequal lengths might become equal.

    Args:
        size: (H, W) that was tried.
        unequal: pairs (length found, length wanted); either side of ``size`` is scaled by wanted / found, and with two
            pairs also each side by its own.
    """
    height, width = size
    for found, wanted in unequal:
        yield from _if_whole((height * wanted, found), (width, 1))
        yield from _if_whole((height, 1), (width * wanted, found))
    if len(unequal) == 2:
        (down, high), (right, wide) = unequal
        yield from _if_whole((height * high, down), (width * wide, right))


def _if_whole(*sides: tuple[int, int]) -> Iterator[Size]:
    """Yields the size whose height and width are two quotients, if both are whole and no longer than ``_LONGEST``."""
    (height, below), (width, beside) = (divmod(dividend, divisor) for dividend, divisor in sides)
    if not below and not beside and max(height, width) <= _LONGEST:
        yield height, width


class _Softmaxes(OwnRandomNumbers):
    """Counts operations, and notes the shape of every matrix that a softmax is taken of."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.operations = 0
        self.unequal: list[tuple[int, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the operation."""
        name = func._schema.name
        if name in ("aten::_softmax", "aten::_safe_softmax"):
            self.shapes.append(tuple(args[0].shape))
        elif name.startswith("aten::_scaled_dot_product"):
            query, key, *_ = args
            self.shapes.append((*query.shape[:-1], key.shape[-2]))
        try:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        except Exception:
            self.unequal = _unequal(name, [tuple(each.shape) for each in args if isinstance(each, Tensor)])
            raise
        self.operations += 1
        return result


def _unequal(name: str, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Returns the lengths that a matrix product or a sum, a difference, a product or a quotient could not join."""
    if len(shapes) < 2:
        return []
    first, second = shapes[-2:]
    if name in ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"):
        pairs = [(first[-1], second[-2])]
    elif name in ("aten::add", "aten::sub", "aten::mul", "aten::div"):
        pairs = [*zip(first, second, strict=True)] if len(first) == len(second) else []
    else:
        pairs = []
    return [(found, wanted) for found, wanted in pairs if found != wanted and found > 1 and wanted > 1]
