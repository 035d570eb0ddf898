"""Padding by reflection, also of images too small for PyTorch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exda_primitives.workbench.shared.padding import MINIMUM, pad, padded_side


def test_padding_equals_pytorchs_where_that_is_possible() -> None:
    image = torch.rand(3, 37, 50)
    expected = torch.nn.functional.pad(image[None], (0, 6, 0, 3), mode="reflect")[0]
    assert torch.equal(pad(image, 8), expected)
    # An array is padded alike.
    assert np.array_equal(pad(image.numpy(), 8), expected.numpy())


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 3, 8, 16, 64]))
def test_any_size_is_padded_to_the_next_multiple(height: int, width: int, multiple: int) -> None:
    image = torch.arange(float(height * width)).reshape(1, height, width)
    padded = pad(image, multiple)
    for side, wanted in zip(padded.shape[-2:], (height, width), strict=True):
        assert side % multiple == 0
        assert side >= max(wanted, MINIMUM)
        assert side < max(wanted, MINIMUM) + multiple
    assert torch.equal(padded[:, :height, :width], image)
    assert set(padded.flatten().tolist()) == set(image.flatten().tolist())


def test_a_small_image_is_reflected_repeatedly() -> None:
    row = torch.tensor([[[1.0, 2.0, 3.0]]])
    expected = [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2]
    assert pad(row, 8)[0, 0].tolist() == expected


def test_an_image_that_fits_is_returned_itself() -> None:
    image = torch.rand(3, 16, 24)
    assert pad(image, 8) is image


@pytest.mark.parametrize(("side", "expected"), [(1, 16), (16, 16), (17, 24), (97, 104)])
def test_padded_side(side: int, expected: int) -> None:
    assert padded_side(side, 8) == expected
