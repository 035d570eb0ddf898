"""Layer normalisations over channels, recognised by what they compute."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product

from torch import Tensor, nn

from ..ops.reference import step
from .close import computes, observed
from .steps import NormForm

EPS = (1e-5, 1e-6)
"""Of Restormer and the networks made from it; of ConvNeXt and those made from that."""


def norm_form(norm: nn.Module, maps: tuple[Tensor, ...]) -> NormForm | None:
    """The form of a module, or None where it is no layer normalisation over the channels.

    Args:
        norm: with random parameters, in float64.
        maps: (B, C, H, W) to try it on; one has to have a variance near eps.
    """
    named = dict(norm.named_parameters())
    if len(named) > 2 or any(p.shape != maps[0].shape[1:2] for p in named.values()) or [*norm.buffers()]:
        return None
    seen = observed(norm, maps)
    if seen is None:
        return None
    # With None twice: either may be absent.
    pairs = dict.fromkeys(pair for pair in permutations([*named, None, None], 2) if {*pair} >= named.keys())
    for (weight, bias), subtract_mean, eps in product(pairs, (True, False), EPS):
        form = NormForm(weight, bias, subtract_mean, eps)
        if computes(seen, partial(step.norm, terms=form.terms(norm))):
            return form
    return None
