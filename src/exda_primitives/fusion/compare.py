"""Compares a module's outputs with a formula's."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.terms import TensorFn
from ..surgery.randomness import OwnRandomNumbers

# Relative to the maximum, in float64. Observed: below 1e-14 for true matches, 1e-7 for norms that compute in float32,
# 2e-5 for GELU approximated by tanh.
_TOLERANCE = 1e-6


def is_close(found: object, expected: Tensor) -> bool:
    """Whether both are maps that differ at most by rounding in float64, or in float32 where a part computes in that."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    # Written so that a NaN fails.
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def observed(module: nn.Module, maps: tuple[Tensor, ...]) -> list[tuple[Tensor, object]] | None:
    """Returns each map with the module's output, in training and then in eval mode; None if it draws random numbers.

    The module is left in eval mode. Rare dropout may not fire here, but a changed state of the generator reveals it.
    """
    found = []
    for training in (True, False):
        module.train(training)
        for x in maps:
            with OwnRandomNumbers() as numbers:
                # A copy: the module may write into its input.
                found.append((x, module(x.clone())))
            if not numbers.drew_as(OwnRandomNumbers()):
                return None
    return found


def computes(pairs: list[tuple[Tensor, object]], formula: TensorFn) -> bool:
    """Whether ``formula`` gives every output of ``pairs`` (map, output) from its map."""
    return all(is_close(found, formula(x)) for x, found in pairs)
