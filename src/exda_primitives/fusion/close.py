"""When a module computes what a formula says."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.terms import TensorFn
from ..surgery.randomness import OwnRandomNumbers

# In float64. Seen: below 1e-14 for true matches, 1e-7 for norms that go by float32, 2e-5 for GELU by tanh, not erf.
_TOLERANCE = 1e-6


def is_close(found: object, expected: Tensor) -> bool:
    """Whether both are maps that differ by rounding in float64 (or by what is computed in float32 inside)."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    # Written so that a NaN fails.
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def observed(module: nn.Module, maps: tuple[Tensor, ...]) -> list[tuple[Tensor, object]] | None:
    """What a module makes of maps, in training and then in eval mode (in which it is left); None where it draws.

    What is dropped rarely might not be dropped here: that numbers are drawn shows.
    """
    found = []
    for training in (True, False):
        module.train(training)
        for x in maps:
            with OwnRandomNumbers() as numbers:
                found.append((x, module(x.clone())))
            if not numbers.drew_as(OwnRandomNumbers()):
                return None
    return found


def computes(pairs: list[tuple[Tensor, object]], formula: TensorFn) -> bool:
    """Whether this function of a map makes what was observed."""
    return all(is_close(found, formula(x)) for x, found in pairs)
