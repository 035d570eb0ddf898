"""When a module computes what a formula says."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.terms import Map
from ..patching.randomness import OwnRandomNumbers

# In float64. Seen: below 1e-14 for true matches, 1e-7 for norms that go by float32, 2e-5 for GELU by tanh, not erf.
_TOLERANCE = 1e-6


def is_close(found: object, expected: Tensor) -> bool:
    """Whether both are maps that differ by rounding in float64 (or by what is computed in float32 inside)."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    # Written so that a NaN fails.
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def computes(module: nn.Module, formula: Map, maps: tuple[Tensor, ...]) -> bool:
    """Whether a module is this function of a map, in training as in eval mode (in which it is left)."""
    for training in (True, False):
        module.train(training)
        for x in maps:
            with OwnRandomNumbers() as numbers:
                found = module(x.clone())
            # What is dropped rarely might not be dropped here: that numbers are drawn shows.
            if not is_close(found, formula(x)) or not numbers.drew_as(OwnRandomNumbers()):
                return False
    return True
