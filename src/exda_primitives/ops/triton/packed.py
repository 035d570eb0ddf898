"""Gradients of parameters, summed in one tensor by one kernel, taken apart without a launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def parameter_gradients(packed: Tensor, parameters: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Returns the parts of a vector in the shapes and dtypes of parameters, one after the other; None for None.

    The parts are contiguous, so that autograd keeps them as they are: a slice of a matrix it would copy.

    Args:
        packed: one dimension; what is beyond the last parameter is left out.
        parameters: their numbers of elements say where each part begins.
    """
    dtypes = {each.dtype for each in parameters if each is not None}
    if len(dtypes) == 1:
        # One launch for all of them, and none if they are float32.
        packed = packed.to(dtypes.pop())
    found: list[Tensor | None] = []
    first = 0
    for each in parameters:
        if each is None:
            found.append(None)
            continue
        found.append(packed[first : first + each.numel()].view(each.shape).to(each.dtype))
        first += each.numel()
    return found
