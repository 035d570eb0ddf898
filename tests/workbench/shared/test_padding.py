"""Padding by reflection: as torch does it where it can, and on beyond."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exda_primitives.workbench.shared.padding import MINIMUM, pad, padded_side


def test_like_torch_where_torch_can() -> None:
    image = torch.rand(3, 37, 50)
    expected = torch.nn.functional.pad(image[None], (0, 6, 0, 3), mode="reflect")[0]
    assert torch.equal(pad(image, 8), expected)


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 3, 8, 16, 64]))
def test_any_size(height: int, width: int, multiple: int) -> None:
    image = torch.arange(float(height * width)).reshape(1, height, width)
    padded = pad(image, multiple)
    for side, wanted in zip(padded.shape[-2:], (height, width), strict=True):
        assert side % multiple == 0
        assert side >= max(wanted, MINIMUM)
        assert side < max(wanted, MINIMUM) + multiple
    assert torch.equal(padded[:, :height, :width], image)
    assert set(padded.flatten().tolist()) == set(image.flatten().tolist())


def test_reflected_again_and_again() -> None:
    row = torch.tensor([[[1.0, 2.0, 3.0]]])
    expected = [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2]
    assert pad(row, 8)[0, 0].tolist() == expected


def test_nothing_to_do() -> None:
    image = torch.rand(3, 16, 24)
    assert pad(image, 8) is image


@pytest.mark.parametrize(("side", "expected"), [(1, 16), (16, 16), (17, 24), (97, 104)])
def test_side(side: int, expected: int) -> None:
    assert padded_side(side, 8) == expected
