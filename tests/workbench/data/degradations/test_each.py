"""The properties of each degradation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from tests.workbench.data.images import random_images, seeded
from torch.nn import functional as F

from exda_primitives.errors import ImageError
from exda_primitives.workbench.data.degradations import (
    DEGRADATIONS,
    composition,
    gaussian_noise,
    haze,
    low_light,
    motion_blur,
    rain,
    snow,
)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_has_the_standard_deviation_asked_for(sigma: int) -> None:
    grey = torch.full((3, 128, 128), 0.5)
    noise = DEGRADATIONS[f"noise{sigma}"](grey, seeded()) - grey
    # 2 %, since at sigma 50 one value in a hundred is clipped.
    assert noise.std().item() * 255 == pytest.approx(sigma, rel=0.02)
    # Three standard errors of the mean.
    assert abs(noise.mean().item()) < 3 * sigma / 255 / math.sqrt(noise.numel())
    # Neighbouring rows are uncorrelated.
    assert noise[0, 1:].flatten().dot(noise[0, :-1].flatten()).abs() < 0.05 * noise[0].square().sum()


def test_noise_is_scaled_by_sigma() -> None:
    clean = random_images(3, 9, 7)
    once, twice = (gaussian_noise(0.4 + 0.2 * clean, seeded(), sigma=sigma) for sigma in (5, 10))
    torch.testing.assert_close(twice - once, once - (0.4 + 0.2 * clean))


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_rain_is_grey_sparse_and_bright_and_falls_along_its_angle(angle: float) -> None:
    night = torch.zeros(3, 96, 96)
    streaks = rain(night, seeded(), angle=angle, density=0.004, brightness=0.5)
    assert torch.equal(streaks[0], streaks[1])
    assert torch.equal(streaks[0], streaks[2])
    assert 0.02 < (streaks[0] > 0.05).float().mean() < 0.3
    assert 0.3 < streaks.max() <= 0.5
    down = (streaks[0, 1:] - streaks[0, :-1]).abs().sum()
    across = (streaks[0, :, 1:] - streaks[0, :, :-1]).abs().sum()
    assert down < across / 3 if angle == 0 else across < down / 3


@pytest.mark.parametrize("degradation", [rain, snow])
def test_strokes_reach_the_borders(degradation: object) -> None:
    # 64 images, so that the mean of a few rows is steady.
    fallen = degradation(torch.zeros(64, 1, 65, 65), seeded())  # type: ignore[operator]
    borders = torch.cat([fallen[..., :4, :].flatten(), fallen[..., -4:, :].flatten(), fallen[..., -4:].flatten()])
    assert borders.mean().item() == pytest.approx(fallen[..., 16:48, 16:48].mean().item(), rel=0.15)


@pytest.mark.parametrize(
    ("degradation", "name", "weak", "strong"),
    [
        (rain, "brightness", 0.2, 0.6),
        (rain, "density", 0.002, 0.02),
        (snow, "opacity", 0.3, 0.9),
        (snow, "density", 0.002, 0.02),
    ],
)
def test_rain_and_snow_only_brighten_and_stronger_ones_more(
    degradation: object, name: str, weak: float, strong: float
) -> None:
    clean = 0.5 * random_images(3, 33, 47)
    less, more = (degradation(clean, seeded(), **{name: value}) for value in (weak, strong))  # type: ignore[operator]
    assert (less >= clean - 1e-6).all()
    assert (more >= less - 1e-6).all()
    assert more.mean() > less.mean() + 1e-3
    assert torch.equal(degradation(clean, seeded(), **{name: 0.0}), clean)  # type: ignore[operator]


def test_snow_is_white_and_of_several_sizes() -> None:
    black = torch.zeros(3, 128, 128)
    flakes = snow(black, seeded(), opacity=1.0, density=0.01)
    assert torch.equal(flakes[0], flakes[2])
    assert flakes.max() > 0.9
    # An opening by 7 x 7 leaves the large flakes: some, but not all.
    opened = F.max_pool2d(-F.max_pool2d(-flakes[None], 7, 1, 3), 7, 1, 3)[0]
    assert 0.02 * flakes.sum() < opened.sum() < 0.8 * flakes.sum()


def test_haze_follows_koschmieders_law_with_the_given_depth() -> None:
    clean, depth = random_images(2, 3, 5, 7), torch.rand(2, 1, 5, 7, generator=seeded(3))
    beta, airlight = torch.tensor([0.5, 1.5]).view(2, 1, 1, 1), 0.8
    t = torch.exp(-beta * depth)
    expected = clean * t + airlight * (1 - t)
    torch.testing.assert_close(haze(clean, seeded(), beta=beta, airlight=airlight, depth=depth), expected)
    assert torch.equal(
        haze(clean[0], seeded(), beta=0.5, airlight=airlight, depth=depth[0]),
        haze(clean, seeded(), beta=beta, airlight=airlight, depth=depth)[0],
    )


def test_thicker_haze_moves_colours_further_towards_the_airlight() -> None:
    clean = random_images(3, 64, 48)
    distance = [(haze(clean, seeded(), beta=beta, airlight=0.8) - 0.8).abs() for beta in (0.0, 0.5, 1.0, 2.0, 50.0)]
    torch.testing.assert_close(distance[0], (clean - 0.8).abs())
    for thinner, thicker in pairwise(distance):
        assert (thicker <= thinner + 1e-6).all()
        assert thicker.mean() < thinner.mean()


def test_made_up_depth_is_greater_at_the_top_and_smooth() -> None:
    left = haze(torch.ones(16, 1, 64, 64), seeded(), beta=1.0, airlight=0.0)
    depth = -left.log()
    assert depth.min() >= -1e-6
    assert depth.max() <= 0.7 + 1e-6
    assert depth[..., :8, :].mean() > depth[..., -8:, :].mean() + 0.2
    assert (depth[..., 1:, :] - depth[..., :-1, :]).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(5, 7), (1, 7, 5), (2, 1, 5, 7), (1, 1, 5, 7)])
def test_a_depth_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="does not fit images of"):
        haze(random_images(3, 5, 7), seeded(), depth=torch.ones(shape))


def test_low_light_keeps_the_colours_and_darkens_the_dark_more() -> None:
    clean = torch.tensor([0.8, 0.4, 0.2]).view(3, 1, 1).expand(3, 30, 60) * torch.linspace(0.2, 1, 60)
    dark = low_light(clean, seeded(), gamma=2.5, noise=0.0)
    torch.testing.assert_close(dark[1], dark[0] / 2)
    gain = dark[0, 0] / clean[0, 0]
    assert (gain[1:] >= gain[:-1] - 1e-6).all()
    assert gain[0] < 0.2
    assert 0.6 < gain[-1] < 0.8


def test_low_light_with_gamma_one_is_noise_alone() -> None:
    clean = 0.3 + 0.4 * random_images(3, 64, 64)
    torch.testing.assert_close(low_light(clean, seeded(), gamma=1.0, noise=0.0), clean)
    grain = low_light(clean, seeded(), gamma=1.0, noise=0.05) - clean
    assert grain.std().item() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_blur_keeps_a_uniform_image(size: tuple[int, int]) -> None:
    even = torch.tensor([0.2, 0.9, 0.0]).view(3, 1, 1).expand(3, *size)
    torch.testing.assert_close(motion_blur(even, seeded()), even)


def test_a_straight_blur_of_a_point_is_a_line_of_its_length() -> None:
    point = torch.zeros(8, 1, 41, 41)
    point[..., 20, 20] = 1
    lines = motion_blur(point, seeded(), length=20.0, turn=0.0)
    torch.testing.assert_close(lines.sum((1, 2, 3)), torch.ones(8))
    offsets = torch.arange(-20.0, 21.0)
    down, right = lines.sum((1, 3)) @ offsets, lines.sum((1, 2)) @ offsets
    torch.testing.assert_close(torch.stack([down, right]), torch.zeros(2, 8), atol=1e-4, rtol=0)
    # Points spread evenly over a line of length L have the variance L^2 / 12 along it, and 0 across.
    yy = lines.sum((1, 3)) @ offsets.square()
    xx = lines.sum((1, 2)) @ offsets.square()
    xy = torch.einsum("bchw,h,w->b", lines, offsets, offsets)
    variances = torch.linalg.eigvalsh(torch.stack([yy, xy, xy, xx], -1).view(8, 2, 2))
    # Bilinear spreading onto pixels adds up to a quarter.
    torch.testing.assert_close(variances, torch.tensor([[0.0, 400 / 12]]).expand(8, 2), atol=0.6, rtol=0)


def test_a_longer_blur_blurs_more_and_length_0_keeps_the_image() -> None:
    clean = random_images(3, 64, 64)
    spread = [motion_blur(clean, seeded(), length=length).std().item() for length in (0.0, 4.0, 12.0, 24.0)]
    assert spread == sorted(spread, reverse=True)
    torch.testing.assert_close(motion_blur(clean, seeded(), length=0.0), clean)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("low_haze", [low_light, haze]),
        ("low_rain", [low_light, rain]),
        ("low_snow", [low_light, snow]),
        ("haze_rain", [rain, haze]),
        ("haze_snow", [snow, haze]),
        ("low_haze_rain", [low_light, rain, haze]),
        ("low_haze_snow", [low_light, snow, haze]),
    ],
)
def test_a_composition_is_its_parts_in_order(name: str, parts: list[object]) -> None:
    clean, generator = random_images(2, 3, 21, 34), seeded(5)
    expected = clean
    for part in parts:
        expected = part(expected, generator)  # type: ignore[operator]
    assert torch.equal(composition(clean, seeded(5), name=name), expected)


def test_strengths_may_differ_within_a_batch() -> None:
    clean = random_images(2, 3, 32, 32)
    rainy = rain(clean, seeded(), brightness=torch.tensor([0.0, 0.5]).view(2, 1, 1, 1))
    assert torch.equal(rainy[0], clean[0])
    assert not torch.equal(rainy[1], clean[1])
