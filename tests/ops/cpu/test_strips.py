"""Strips cover every row of every image once, and name the rows that 3x3 convolutions read around them."""

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
def test_strips_cover_every_row_once(batch, height, width, channels, kilobytes):
    x = torch.zeros(1, 1, 1, 1).expand(batch, channels, height, width)
    covered = torch.zeros(batch, height, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BYTES", kilobytes << 10)
        found = list(module.strips(x, channels))
    row_bytes, numbers = channels * width * 4, list(range(height))
    for strip in found:
        rows, images = strip.rows(), range(batch)[strip.images]
        covered[strip.images, rows] += 1
        # Rows of one image, or whole images; within the limit, unless a single row exceeds it.
        assert len(images) == 1 or numbers[rows] == numbers
        assert row_bytes * len(numbers[rows]) * len(images) <= max(kilobytes << 10, row_bytes)
        # One row above and below for each 3x3 convolution.
        for reach in (1, 2):
            around = numbers[strip.rows(reach)]
            assert around == [row for row in numbers if strip.top - reach <= row < strip.bottom + reach]
            for inner in range(reach):
                assert around[strip.rows_in(reach, inner)] == numbers[strip.rows(inner)]
    assert torch.equal(covered, torch.ones_like(covered))
