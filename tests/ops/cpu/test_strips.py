"""Strips cover every row of every image once, and hold what a 3x3 convolution reads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exda_primitives.ops.cpu import strips as module


@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    kilobytes=st.integers(1, 4),
)
def test_cover_every_row_once(batch, height, width, channels, kilobytes):
    x = torch.zeros(1, 1, 1, 1).expand(batch, channels, height, width)
    covered = torch.zeros(batch, height, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BYTES", kilobytes << 10)
        found = list(module.strips(x, channels))
    of_row, numbers = channels * width * 4, list(range(height))
    for strip in found:
        rows, images = strip.rows(), range(batch)[strip.images]
        covered[strip.images, rows] += 1
        assert len(images) == 1 or numbers[rows] == numbers
        assert of_row * len(numbers[rows]) * len(images) <= max(kilobytes << 10, of_row)
        for reach in (1, 2):
            around = numbers[strip.rows(reach)]
            assert around == [row for row in numbers if strip.top - reach <= row < strip.bottom + reach]
            for inner in range(reach):
                assert around[strip.rows_in(reach, inner)] == numbers[strip.rows(inner)]
    assert torch.equal(covered, torch.ones_like(covered))
