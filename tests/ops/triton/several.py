"""How far functions with several outputs are from a reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .agreement import random

Function = Callable[..., Sequence[Tensor | None]]


def differentiate(function: Function, tensors: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the outputs that are not None, and the gradients of all tensors that are not None."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    outputs = [out for out in function(*leaves) if out is not None]
    upstream = [random(*out.shape, dtype=out.dtype, seed=9 + i) for i, out in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, [leaf for leaf in leaves if leaf is not None], upstream)
    return [out.detach() for out in outputs], list(gradients)


def deviations(kernel: Function, reference: Function, tensors: Sequence[Tensor | None]) -> tuple[float, float]:
    """Returns the largest deviations among the outputs and among the gradients, relative to a tensor's largest element.

    Largest elements below 0.1 are taken as 0.1, since some gradients are zero.
    """
    outputs, gradients = differentiate(kernel, tensors)
    wide = differentiate(reference, [None if t is None else t.detach().double() for t in tensors])
    assert [g.dtype for g in gradients] == [t.dtype for t in tensors if t is not None]
    return _largest(outputs, wide[0]), _largest(gradients, wide[1])


def deviation(kernel: Function, reference: Function, tensors: Sequence[Tensor | None]) -> float:
    """Returns the largest deviation among the outputs, as ``deviations`` does, of a kernel without gradients."""
    wide = [None if t is None else t.double() for t in tensors]
    found, expected = ([x for x in f(*t) if x is not None] for f, t in ((kernel, tensors), (reference, wide)))
    return _largest(found, expected)


def _largest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    assert [f.shape for f in found] == [e.shape for e in expected]
    # `max` below would ignore a NaN, or not, depending on its place.
    assert all(f.isfinite().all() for f in found)
    return max(
        ((f.double() - e).abs().max() / max(e.abs().max().item(), 0.1)).item()
        for f, e in zip(found, expected, strict=True)
    )
