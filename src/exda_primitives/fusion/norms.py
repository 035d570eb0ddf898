"""Recognises layer normalisations over channels by what they compute."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product

from torch import Tensor, nn

from ..ops.reference import step
from .compare import computes, observed
from .steps import NormForm

EPS = (1e-5, 1e-6)
"""Values of eps to try: of Restormer and its descendants, and of ConvNeXt and its descendants."""


def norm_form(norm: nn.Module, maps: tuple[Tensor, ...]) -> NormForm | None:
    """Returns the form of a module, or None if it is no layer normalisation over the channels.

    Args:
        norm: the module, with random parameters in float64.
        maps: maps (B, C, H, W) to try it on; one needs a variance near eps, or eps would not show.
    """
    named = dict(norm.named_parameters())
    if len(named) > 2 or any(p.shape != maps[0].shape[1:2] for p in named.values()) or [*norm.buffers()]:
        return None
    seen = observed(norm, maps)
    if seen is None:
        return None
    # (weight, bias): every assignment that uses all parameters. None twice, since both may be absent.
    pairs = dict.fromkeys(pair for pair in permutations([*named, None, None], 2) if {*pair} >= named.keys())
    for (weight, bias), subtract_mean, eps in product(pairs, (True, False), EPS):
        form = NormForm(weight, bias, subtract_mean, eps)
        if computes(seen, partial(step.norm, terms=form.terms(norm))):
            return form
    return None
