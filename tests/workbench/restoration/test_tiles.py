"""Tiles: every pixel is covered, weights sum to one, and the seam is what a direct computation gives."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exda_primitives.workbench.restoration.tiles import Axis, Pixels, axis, blend, weights


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Length, tile, overlap, and the multiple of all three."""
    multiple = draw(st.sampled_from([1, 2, 8]))
    tile = draw(st.integers(2, 12))
    overlap = draw(st.integers(1, tile // 2))
    length = draw(st.integers(1, 60))
    return length * multiple, tile * multiple, overlap * multiple, multiple


@given(plans())
@settings(deadline=None)
def test_tiles_cover_the_axis(plan: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = plan
    tiles = axis(length, tile, overlap)
    assert tiles.tile == min(tile, length)
    assert tiles.starts[0] == 0
    assert tiles.starts[-1] + tiles.tile == length
    assert all(start % multiple == 0 for start in tiles.starts)
    assert all(b - a <= tile - overlap for a, b in pairwise(tiles.starts))
    assert all(b > a for a, b in pairwise(tiles.starts))
    assert len(tiles.ramps) == len(tiles.starts) - 1


@given(plans())
@settings(deadline=None)
def test_ramps_lie_in_both_tiles_and_apart_from_each_other(plan: tuple[int, int, int, int]) -> None:
    length, tile, overlap, _ = plan
    tiles = axis(length, tile, overlap)
    for (before, after), ramp in zip(pairwise(tiles.starts), tiles.ramps, strict=True):
        assert after <= ramp.begin
        assert ramp.end <= before + tiles.tile
        assert ramp.width >= overlap
    assert all(a.end <= b.begin for a, b in pairwise(tiles.ramps))


def shares(tiles: Axis) -> Pixels:
    """(tiles, length): the weight of every tile at every pixel, from the definition."""
    length = tiles.starts[-1] + tiles.tile
    taken_over = np.ones((len(tiles.starts) + 1, length), np.float32)
    taken_over[-1] = 0
    for row, ramp in zip(taken_over[1:-1], tiles.ramps, strict=True):
        row[: ramp.begin] = 0
        row[ramp.begin : ramp.end] = weights(ramp.width)
    shared: Pixels = taken_over[:-1] - taken_over[1:]
    return shared


@given(plans())
@settings(deadline=None)
def test_weights_sum_to_one_and_are_zero_outside_the_tile(plan: tuple[int, int, int, int]) -> None:
    tiles = axis(*plan[:3])
    share = shares(tiles)
    np.testing.assert_array_equal(share.sum(0), 1)
    assert (share >= 0).all()
    for row, start in zip(share, tiles.starts, strict=True):
        assert not row[:start].any()
        assert not row[start + tiles.tile :].any()


def tiles_of(image: Pixels, rows: Axis, columns: Axis) -> Callable[[int, int], Pixels]:
    return lambda y, x: image[:, y : y + rows.tile, x : x + columns.tile].copy()


@given(plans(), plans())
@settings(max_examples=50, deadline=None)
def test_tiles_that_agree_give_the_image(down: tuple[int, int, int, int], right: tuple[int, int, int, int]) -> None:
    rows, columns = axis(*down[:3]), axis(*right[:3])
    image = np.random.default_rng(0).random((2, down[0], right[0]), np.float32)
    blended, seam = blend(tiles_of(image, rows, columns), rows, columns)
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, image, rtol=0, atol=1e-6)
    assert seam.largest == seam.disagreement == 0


@pytest.mark.parametrize(
    ("down", "right"), [((40, 16, 8), (70, 24, 6)), ((16, 16, 8), (33, 12, 5)), ((50, 20, 9), (10, 10, 2))]
)
def test_blend_and_seam_of_tiles_that_disagree(down: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    rows, columns = axis(*down), axis(*right)
    generator = np.random.default_rng(1)
    random = {
        (y, x): generator.random((2, rows.tile, columns.tile), np.float32) / 4
        for y in rows.starts
        for x in columns.starts
    }
    blended, seam = blend(lambda y, x: random[y, x].copy(), rows, columns)

    # Every tile extended over the whole image by its edge pixels; (tiles down, tiles right, C, H, W).
    height, width = down[0], right[0]
    whole = np.stack(
        [
            np.stack(
                [
                    random[y, x][:, (np.arange(height) - y).clip(0, rows.tile - 1)][
                        :, :, (np.arange(width) - x).clip(0, columns.tile - 1)
                    ]
                    for x in columns.starts
                ]
            )
            for y in rows.starts
        ]
    )
    wy, wx = shares(rows), shares(columns)
    np.testing.assert_allclose(blended, np.einsum("iy,jx,ijcyx->cyx", wy, wx, whole), rtol=0, atol=1e-6)
    middle_x = (whole[..., 1:] + whole[..., :-1]) / 2
    middle_y = (whole[..., 1:, :] + whole[..., :-1, :]) / 2
    across = np.einsum("iy,jx,ijcyx->cyx", wy, np.diff(wx, axis=1), middle_x)
    along = np.einsum("iy,jx,ijcyx->cyx", np.diff(wy, axis=1), wx, middle_y)
    largest = 255 * max(float(abs(steps).max()) if steps.size else 0 for steps in (across, along))
    assert seam.largest == pytest.approx(largest, rel=1e-4)
    assert 0 < seam.percentile <= seam.largest


def test_the_seam_of_a_constant_offset_is_the_slope_of_the_weight() -> None:
    rows, columns = axis(8, 8, 4), axis(48, 32, 16)
    blended, seam = blend(lambda y, x: np.full((1, 8, 32), x / 255), rows, columns)
    slope = float(np.diff(weights(16)).max())
    assert seam.largest == pytest.approx(16 * slope, rel=1e-5)
    assert seam.disagreement == pytest.approx(16, rel=1e-5)
    assert float(255 * abs(np.diff(blended)).max()) == pytest.approx(seam.largest, rel=1e-4)


def test_percentile_is_below_the_largest_step() -> None:
    rows, columns = axis(256, 256, 4), axis(48, 32, 16)

    def tile_at(y: int, x: int) -> Pixels:
        tile = np.full((1, 256, 32), x / 255 / 16)
        tile[0, 5, 8] += 0.5 * (x > 0)
        return tile

    _, seam = blend(tile_at, rows, columns)
    assert seam.largest > 10 * seam.percentile
    assert seam.percentile == pytest.approx(float(np.diff(weights(16)).max()), abs=0.002)


def test_each_tile_is_asked_for_once_in_reading_order() -> None:
    asked = []

    def tile_at(y: int, x: int) -> Pixels:
        asked.append((y, x))
        return np.zeros((1, 16, 16))

    blend(tile_at, axis(40, 16, 8), axis(24, 16, 8))
    assert asked == [(y, x) for y in (0, 8, 16, 24) for x in (0, 8)]


def test_the_outermost_pixels_of_a_tile_have_no_weight() -> None:
    share = weights(16)
    assert share[0] == 0
    assert share[-1] == 1
