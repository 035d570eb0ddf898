"""How far functions of several outputs are from a reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .agreement import random

Function = Callable[..., Sequence[Tensor | None]]


def differentiate(function: Function, tensors: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs that there are, and the gradients of all tensors that there are."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    outputs = [out for out in function(*leaves) if out is not None]
    upstream = [random(*out.shape, dtype=out.dtype, seed=9 + i) for i, out in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, [leaf for leaf in leaves if leaf is not None], upstream)
    return [out.detach() for out in outputs], list(gradients)


def deviations(kernel: Function, reference: Function, tensors: Sequence[Tensor | None]) -> tuple[float, float]:
    """The largest of the outputs and of the gradients, each relative to its tensor's largest element.

    What is smaller than 0.1 is compared with 0.1: some gradients are zero.
    """
    outputs, gradients = differentiate(kernel, tensors)
    wide = differentiate(reference, [None if t is None else t.detach().double() for t in tensors])
    assert [g.dtype for g in gradients] == [t.dtype for t in tensors if t is not None]
    return _largest(outputs, wide[0]), _largest(gradients, wide[1])


def _largest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    assert [f.shape for f in found] == [e.shape for e in expected]
    # A comparison with NaN would be False, and the maximum of it anything.
    assert all(f.isfinite().all() for f in found)
    return max(
        ((f.double() - e).abs().max() / max(e.abs().max().item(), 0.1)).item()
        for f, e in zip(found, expected, strict=True)
    )
