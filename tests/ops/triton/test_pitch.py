"""Maps of any width in aligned rows: what is stored beyond a map's width does not affect results."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fusion.blocks import feature, patch_randomly, small_block
from torch import nn

import exda_primitives as exda
from exda_primitives.ops.triton.depthwise import compute
from exda_primitives.ops.triton.launch import row_aligned
from exda_primitives.ops.triton.pitch import in_long_rows, pitch

from .agreement import TOLERANCE, random
from .references import depthwise_reference


@given(width=st.integers(1, 2000))
def test_pitch_is_the_next_multiple_of_16(width):
    assert 0 <= pitch(width) - width < 16
    assert pitch(width) % 16 == 0


class TestInLongRows:
    def test_aligned_map_is_returned(self):
        x = random(2, 3, 4, 32)
        assert in_long_rows(x) is x

    def test_map_is_copied_once(self):
        x = random(2, 3, 4, 19)
        longer = in_long_rows(x)
        assert longer.shape == (2, 3, 4, 32)
        assert row_aligned(longer)
        assert torch.equal(longer[..., :19], x)
        part = longer[..., :19]
        assert in_long_rows(part).data_ptr() == longer.data_ptr()
        assert torch.equal(in_long_rows(part), longer)

    @pytest.mark.parametrize(
        "make",
        [
            # The strides of long rows, but the storage ends with the map, before the last row does.
            lambda: torch.zeros(2 * 3 * 4 * 32 - 13).as_strided((2, 3, 4, 19), (384, 128, 32, 1)),
            lambda: random(2, 3, 4, 48)[..., :19],
            lambda: random(2, 3, 19, 4).transpose(2, 3),
        ],
    )
    def test_other_maps_are_copied(self, make):
        x = make()
        longer = in_long_rows(x)
        assert longer.data_ptr() != x.data_ptr()
        assert torch.equal(longer[..., :19], x)
        assert not longer[..., 19:].any()


@pytest.mark.parametrize(
    ("activation", "shifted", "dtype"),
    [
        ("none", False, torch.bfloat16),
        ("none", True, torch.float32),
        ("gelu", True, torch.bfloat16),
        ("gelu", False, torch.float32),
        ("gate", False, torch.bfloat16),
        ("gate", True, torch.float32),
    ],
)
def test_depthwise_reads_and_writes_zeros_beyond_the_width(activation, shifted, dtype):
    longer = random(1, 4, 3, 48, dtype=dtype)
    longer[..., 37:] = torch.nan
    weight, bias = random(4, 1, 3, 3, seed=1), random(4, seed=2)
    shift = random(4, seed=3) if shifted else None
    found = compute(longer, weight, bias, activation, shift, 37)
    expected = depthwise_reference(longer[..., :37].double(), weight, bias, activation, shift)
    assert (found[..., :37] - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()
    assert torch.equal(found[..., 37:], torch.zeros_like(found[..., 37:]))


@pytest.mark.parametrize(("width", "patched"), [(3, True), (19, False), (19, True)])
@torch.no_grad()
def test_block_ignores_what_is_beyond_the_width(width, patched):
    """Also if its input is in long rows already, with NaN beyond the map."""
    model = nn.Sequential(small_block(bias=True))
    if patched:
        patch_randomly(model)
    model.double()
    x = feature(4, width, 1, dtype=torch.float64)
    with exda.backend("reference"):
        expected = model(x)
    exda.fuse(model)
    longer = torch.full((*x.shape[:3], pitch(width)), torch.nan, dtype=torch.float64)
    longer[..., :width] = x
    with exda.backend("triton"):
        for given in (x, longer[..., :width]):
            found = model(given)
            assert found.is_contiguous()
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
