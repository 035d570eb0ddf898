"""Upsampled tokens are flat beyond the centres of the outermost cells; these plateaus are sorted by position."""

import pytest


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_rounding_does_not_reorder_a_plateau(stride, backend, make_attention, make_maps, differentiate):
    module = make_attention("histogram", tokens=2, stride=stride, scale="mean", value="none")
    (x,) = make_maps("histogram", 1, 6, 8, 8)
    (noise,) = make_maps("histogram", 1, 6, 8, 8, seed=3)
    output = differentiate(module, (x,), backend)["output"]
    # No two values of x are this close: the noise leaves the sorts of x itself unchanged.
    nearby = differentiate(module, (x + 1e-13 * noise,), backend)["output"]
    assert (nearby - output).abs().max() < 1e-10
