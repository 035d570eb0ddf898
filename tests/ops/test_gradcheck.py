"""Analytic gradients against finite differences, in float64."""

import pytest
import torch
from torch.func import functional_call

import exda_primitives as exda

OPTIONS = {
    "no primitives": {"tokens": 0, "value": "none"},
    "residual before": {"tokens": 1, "value": "residual", "bias": True},
    "residual after": {"tokens": 2, "value": "residual", "value_position": "after", "scale": "mean"},
    "replace before": {"tokens": 1, "value": "replace", "stride": 1},
    "replace after": {"tokens": 0, "value": "replace", "value_position": "after"},
    "gelu, channelwise": {"tokens": 2, "value": "gelu", "reinject": "channelwise", "scale": "mean"},
    "sigmoid after, channelwise": {
        "tokens": 2,
        "value": "sigmoid",
        "value_position": "after",
        "reinject": "channelwise",
        "bias": True,
    },
}


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_match_finite_differences(family, options, backend, make_attention, make_maps):
    module = make_attention(family, 4, 2, **options)
    # No finite difference may change the order of a sort. No two of these values are closer than its step, and
    # upsampled from 2x2 no two pixels of a token are equal but for rounding; a larger stride would leave them flat
    # beyond the centres of the outermost cells.
    maps = [x.requires_grad_() for x in make_maps(family, 1, 4, 3, 3)]
    names, parameters = zip(*module.named_parameters(), strict=True)

    def call(*leaves):
        return functional_call(module, dict(zip(names, leaves[len(maps) :], strict=True)), leaves[: len(maps)])

    with exda.backend(backend):
        assert torch.autograd.gradcheck(call, (*maps, *parameters), fast_mode=True)
