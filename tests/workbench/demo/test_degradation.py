"""The demo's degradations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from exda_primitives.workbench.demo.degradation import gaussian_noise, haze, mixed, rain

Degradation = Callable[[Tensor, torch.Generator], Tensor]

EACH: dict[str, Degradation] = {
    "noise": partial(gaussian_noise, sigma=25 / 255),
    "rain": partial(rain, density=0.02, strength=0.5, length=15.0, angle=0.3),
    "haze": partial(haze, thickness=1.0, airlight=0.9),
    "mixed": mixed,
}

each = pytest.mark.parametrize("degrade", EACH.values(), ids=EACH.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeded(99))


@each
@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (1, 3, 37, 23), (3, 3, 1, 1), (1, 3, 1, 50)])
def test_range_and_shape(degrade: Degradation, shape: tuple[int, ...]) -> None:
    degraded = degrade(pictures(*shape), seeded())
    assert degraded.shape == shape
    assert degraded.isfinite().all()
    assert degraded.min() >= 0
    assert degraded.max() <= 1


@each
def test_the_seed_decides_and_nothing_else(degrade: Degradation) -> None:
    clean = pictures(2, 3, 40, 40)
    first = degrade(clean, seeded(1))
    torch.rand(5)
    assert torch.equal(first, degrade(clean, seeded(1)))
    assert not torch.equal(first, degrade(clean, seeded(2)))


@each
def test_the_global_generator_is_left_alone(degrade: Degradation) -> None:
    before = torch.get_rng_state()
    degrade(pictures(1, 3, 16, 16), seeded())
    assert torch.equal(before, torch.get_rng_state())


@each
def test_it_does_degrade_and_leaves_its_input_alone(degrade: Degradation) -> None:
    clean = pictures(2, 3, 64, 64)
    copy = clean.clone()
    degraded = degrade(clean, seeded())
    assert torch.equal(clean, copy)
    assert ((degraded - clean).square().mean(dim=(1, 2, 3)) > 1e-3).all()


@each
def test_images_of_a_batch_are_degraded_differently(degrade: Degradation) -> None:
    clean = pictures(1, 3, 48, 48).expand(2, -1, -1, -1)
    first, second = degrade(clean, seeded())
    assert not torch.equal(first, second)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtype_is_kept(degrade: Degradation, dtype: torch.dtype) -> None:
    clean = pictures(1, 3, 24, 24)
    degraded = degrade(clean.to(dtype), seeded())
    assert degraded.dtype is dtype
    if dtype is torch.float64:
        torch.testing.assert_close(degraded.float(), degrade(clean, seeded()), atol=1e-5, rtol=0)


@each
@pytest.mark.parametrize(
    "bad", [torch.rand(3, 8, 8), torch.rand(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
)
def test_bad_input(degrade: Degradation, bad: Tensor) -> None:
    with pytest.raises(ValueError, match=r"float image batch of shape \(B, 3, H, W\)"):
        degrade(bad, seeded())


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = torch.full((1, 3, 128, 128), 0.5)
    noise = gaussian_noise(grey, seeded(), sigma=0.05) - grey
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)


def test_strengths_may_differ_within_a_batch() -> None:
    clean = pictures(2, 3, 16, 16)
    none_and_some = torch.tensor([0.0, 0.1]).view(2, 1, 1, 1)
    degraded = gaussian_noise(clean, seeded(), sigma=none_and_some)
    assert torch.equal(degraded[0], clean[0])
    assert not torch.equal(degraded[1], clean[1])


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_rain_is_grey_sparse_bright_and_along_its_angle(angle: float) -> None:
    dark = torch.zeros(1, 3, 96, 96)
    streaks = rain(dark, seeded(), density=0.002, strength=0.5, length=15.0, angle=angle)[0]
    assert torch.equal(streaks[0], streaks[1])
    assert torch.equal(streaks[0], streaks[2])
    assert 0 < (streaks[0] > 0).float().mean() < 0.2
    down = (streaks[0, 1:] - streaks[0, :-1]).abs().sum()
    across = (streaks[0, :, 1:] - streaks[0, :, :-1]).abs().sum()
    assert down < across / 3 if angle == 0 else across < down / 3


def test_rain_reaches_the_borders() -> None:
    streaks = rain(torch.zeros(1, 3, 64, 64), seeded(), density=0.02, strength=0.5, length=20.0, angle=0.2)
    middle = streaks[..., 16:48, 16:48].mean()
    borders = torch.stack([streaks[..., :4, :], streaks[..., -4:, :]]).mean()
    assert borders == pytest.approx(middle, rel=0.25)


def test_haze_only_moves_towards_the_airlight_and_more_at_the_top() -> None:
    clean = pictures(1, 3, 64, 64)
    hazy = haze(clean, seeded(), thickness=1.0, airlight=0.9)
    assert ((hazy - clean) * (0.9 - clean) >= 0).all()
    left = ((0.9 - hazy) / (0.9 - clean)).mean(dim=(0, 1, 3))
    assert left[:8].mean() < left[-8:].mean()
    torch.testing.assert_close(haze(clean, seeded(), thickness=0.0, airlight=0.9), clean)
