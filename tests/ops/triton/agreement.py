"""How far a kernel's output and gradients are from a reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._device import _device_constructors

# Relative to the largest element. For half types about two roundings, 2^-11 and 2^-8 each. Measured for the gate, whose
# gradient is rounded three times: 8.0e-4 and 8.7e-3; all others stay below 6.4e-4 and 4.7e-3.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 9e-3}


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Normally distributed numbers, the same in every dtype up to rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills what ``torch.empty`` returns with NaN, so that elements a kernel does not write are found."""
    empty = torch.empty
    # PyTorch caches the set of functions that a default device applies to: filled now, it holds the real torch.empty.
    _device_constructors()

    def poisoned(*args: object, **options: object) -> Tensor:
        made: Tensor = empty(*args, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


def differentiate(
    function: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], upstream: Tensor
) -> list[Tensor]:
    """Returns the output, and the gradients of all tensors that are not None."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    output = function(*leaves)
    gradients = torch.autograd.grad(output, [leaf for leaf in leaves if leaf is not None], upstream)
    return [output.detach(), *gradients]


def disagreement(
    kernel: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    *tensors: Tensor | None,
    upstream: Tensor | None = None,
) -> float:
    """Returns the largest deviation of the output or a gradient from the reference, relative to its largest element.

    Largest elements below 0.1 are taken as 0.1, since some gradients are zero.
    """
    wide = tuple(None if t is None else t.detach().double() for t in tensors)
    assert tensors[0] is not None
    if upstream is None:
        upstream = random(*reference(*wide).shape, dtype=tensors[0].dtype, seed=9)
    found = differentiate(kernel, tensors, upstream)
    expected = differentiate(reference, wide, upstream.double())
    assert [f.shape for f in found] == [e.shape for e in expected]
    present = [t for t in tensors if t is not None]
    assert [f.dtype for f in found] == [t.dtype for t in (tensors[0], *present)]
    # `max` below would ignore a NaN, or not, depending on its place.
    assert all(f.isfinite().all() for f in found)
    return max(
        ((f.double() - e).abs().max() / max(e.abs().max().item(), 0.1)).item()
        for f, e in zip(found, expected, strict=True)
    )
