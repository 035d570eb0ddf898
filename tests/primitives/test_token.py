"""Global spatial tokens: soft maps whose compact form sums to 1 at every size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from exda_primitives import GST

SIZES = [(8, 8), (7, 5), (1, 9), (9, 1), (1, 1), (17, 33)]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "H{}-W{}".format(*size))
strides = pytest.mark.parametrize("stride", [1, 2, 4], ids="s{}".format)
scales = pytest.mark.parametrize("scale", ["sum", "mean"])
side, seeds = st.integers(1, 12), st.integers(0, 2**16)


def random_token(heads=2, tokens=3, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        token = GST(4, heads, tokens, **options)
        torch.nn.init.normal_(token.phi.weight)
    return token.double()


def random_map(*size, seed=1):
    return torch.randn(2, 4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(height=side, width=side, stride=st.integers(1, 5), scale=st.sampled_from(["sum", "mean"]), seed=seeds)
def test_compact_maps_are_distributions(height, width, stride, scale, seed):
    token = random_token(stride=stride, scale=scale, seed=seed)
    maps = token.maps(random_map(height, width, seed=seed))
    assert maps.shape == (2, 2, 3, -(-height // stride), -(-width // stride))
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 2, 3).double(), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(height=side, width=side, stride=st.integers(1, 5), seed=seeds)
def test_upsampling_keeps_the_range(height, width, stride, seed):
    token, x = random_token(stride=stride, seed=seed), random_map(height, width, seed=seed)
    maps, g = token.maps(x), token(x)
    assert g.shape == (2, 2, 3, height, width)
    assert (g >= maps.amin((-2, -1), keepdim=True) - 1e-15).all()
    assert (g <= maps.amax((-2, -1), keepdim=True) + 1e-15).all()


@sizes
@strides
def test_scale_sum_upsamples_the_compact_maps(size, stride):
    token, x = random_token(stride=stride), random_map(*size)
    expected = F.interpolate(token.maps(x).flatten(1, 2), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(token(x).flatten(1, 2), expected, rtol=0, atol=1e-15)


@sizes
@strides
def test_scale_mean_is_sum_times_compact_pixels(size, stride):
    summed, averaged = (random_token(stride=stride, scale=scale) for scale in ("sum", "mean"))
    x = random_map(*size)
    maps = summed.maps(x)
    assert torch.equal(averaged.maps(x), maps), "compact maps are distributions at either scale"
    pixels = maps.shape[-2] * maps.shape[-1]
    torch.testing.assert_close(averaged(x), summed(x) * pixels, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 4), (16, 8)])
def test_scale_mean_does_not_depend_on_the_resolution(height, width):
    # With stride 1 nothing is upsampled: the map is the compact one, scaled to a mean of 1.
    mean = random_token(stride=1, scale="mean")(random_map(height, width)).mean((-2, -1))
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=0, atol=1e-13)


@sizes
@strides
def test_pooling_does_not_count_padding(size, stride):
    # Pooling a constant gives the constant only if padding is not counted; otherwise the map would not be uniform.
    maps = random_token(stride=stride).maps(torch.ones(2, 4, *size, dtype=torch.float64))
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / maps[0, 0, 0].numel()), rtol=1e-13, atol=0)


@scales
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_maps_are_float32(scale, dtype):
    token, x = random_token(scale=scale).to(dtype), random_map(64, 64).to(dtype)
    maps = token.maps(x)
    assert maps.dtype is token(x).dtype is torch.float32
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 2, 3), rtol=0, atol=1e-5)


def test_each_token_is_computed_from_its_own_row_of_phi():
    token, x = random_token(), random_map(6, 4)
    single = GST(4, 1, 1).double()
    # Row 4 of 2 heads with 3 tokens each: head 1, token 1.
    single.phi.weight.data.copy_(token.phi.weight[4:5])
    torch.testing.assert_close(token(x)[:, 1, 1], single(x)[:, 0, 0], rtol=0, atol=1e-15)


def test_large_logits_stay_finite():
    token = random_token()
    maps = token.maps(1e4 * random_map(8, 8))
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 2, 3).double(), rtol=0, atol=1e-12)
