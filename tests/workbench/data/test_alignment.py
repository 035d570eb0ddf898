"""Alignment of pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exda_primitives.workbench.data import DEGRADATIONS, degrade
from exda_primitives.workbench.data.alignment import Alignment, alignment


def scene(seed=0, height=160, width=192):
    """An image with details of all sizes: noise whose amplitude falls with frequency, as in photographs."""
    drawn = torch.randn(height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frequency = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2
    image = torch.fft.irfft2(torch.fft.rfft2(drawn) / (frequency.sqrt() + 0.005), s=(height, width))
    image = (image - image.min()) / (image.max() - image.min())
    return image.float().expand(3, -1, -1).contiguous()


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_degradations_do_not_count_as_shifts(degradation):
    clean = scene()
    assert alignment(degrade(clean, degradation, 0), clean).problem is None


@settings(max_examples=20, deadline=None)
@given(down=st.integers(-16, 16), right=st.integers(-16, 16), height=st.integers(65, 160), width=st.integers(65, 192))
def test_shift_is_measured_in_whole_pixels(down, right, height, width):
    clean = scene()
    degraded = torch.roll(degrade(clean, "haze_rain", 1), (down, right), (1, 2))
    inside = (slice(None), slice(0, height), slice(0, width))
    found = alignment(degraded[inside], clean[inside])
    assert (found.down, found.right) == (down, right)
    assert (found.problem is None) is (max(abs(down), abs(right)) <= 1)


def test_grey_pairs_and_other_brightness():
    clean = scene()[:1]
    assert alignment(0.3 * torch.roll(clean, 4, 2) + 0.5, clean)[:2] == (0, 4)


@pytest.mark.parametrize("side", [80, 160])
def test_another_image_is_no_partner(side):
    assert "little in common" in alignment(scene(1, side, side), scene(2, side, side)).problem


@pytest.mark.parametrize("flat", [torch.zeros(3, 64, 64), torch.full((1, 9, 70), 0.25)])
def test_an_image_without_details_is_not_complained_of(flat):
    assert alignment(flat, flat).problem is None


def test_the_problem_tells_size_and_direction():
    assert Alignment(-3, 5, 0.9, 0.2).problem == "the degraded image is shifted by -3 pixels downwards, +5 to the right"
