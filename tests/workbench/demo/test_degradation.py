"""The mixture of rain, haze and noise that the demo's host was trained on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exda_primitives import ImageError
from exda_primitives.workbench.demo.degradation import made_up_depth, mixed, thin_rain
from exda_primitives.workbench.demo.photograph import photograph


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeded(99))


def streaks(size: int, *, density: float, length: float, angle: float) -> Tensor:
    of = (torch.full((1, 1, 1, 1), value) for value in (density, length, angle))
    density_, length_, angle_ = of
    return thin_rain(torch.zeros(1, 3, size, size), seeded(), density=density_, length=length_, angle=angle_)[0, 0]


@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (1, 3, 37, 23), (3, 3, 1, 1), (1, 3, 1, 50), (3, 24, 16)])
def test_shape_is_kept_with_values_in_range(shape: tuple[int, ...]) -> None:
    degraded = mixed(images(*shape), seeded())
    assert degraded.shape == shape
    assert degraded.isfinite().all()
    assert degraded.min() >= 0
    assert degraded.max() <= 1


def test_the_result_depends_on_the_seed_alone() -> None:
    clean = images(2, 3, 40, 40)
    before = torch.get_rng_state()
    first = mixed(clean, seeded(1))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(first, mixed(clean, seeded(1)))
    assert not torch.equal(first, mixed(clean, seeded(2)))


def test_the_photographs_layout_is_kept() -> None:
    assert mixed(photograph(), seeded()).is_contiguous(memory_format=torch.channels_last)
    assert mixed(photograph(), seeded()).stride(0) == 3 * 512 * 512


def test_the_image_is_degraded_and_the_input_left_alone() -> None:
    clean = images(2, 3, 64, 64)
    copy = clean.clone()
    degraded = mixed(clean, seeded())
    assert torch.equal(clean, copy)
    assert ((degraded - clean).square().mean(dim=(1, 2, 3)) > 1e-3).all()


def test_images_of_a_batch_are_degraded_differently() -> None:
    clean = images(1, 3, 48, 48).expand(2, -1, -1, -1)
    first, second = mixed(clean, seeded())
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    clean = images(1, 3, 24, 24)
    degraded = mixed(clean.to(dtype), seeded())
    assert degraded.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float64 else 4e-3
    torch.testing.assert_close(degraded.float(), mixed(clean, seeded()), atol=tolerance, rtol=0)


@pytest.mark.parametrize("bad", [torch.rand(8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_bad_input_is_refused(bad: Tensor) -> None:
    with pytest.raises(ImageError, match=r"expected float images \(B, C, H, W\)"):
        mixed(bad, seeded())


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_rain_is_sparse_and_falls_along_its_angle(angle: float) -> None:
    found = streaks(96, density=0.002, length=15.0, angle=angle)
    assert 0 < (found > 0).float().mean() < 0.2
    down = (found[1:] - found[:-1]).abs().sum()
    across = (found[:, 1:] - found[:, :-1]).abs().sum()
    assert down < across / 3 if angle == 0 else across < down / 3


def test_rain_reaches_the_borders() -> None:
    found = streaks(64, density=0.02, length=20.0, angle=0.2)
    borders = torch.stack([found[:4], found[-4:]]).mean()
    assert borders == pytest.approx(found[16:48, 16:48].mean(), rel=0.25)


def test_the_top_is_farther_away_than_the_bottom() -> None:
    depth = made_up_depth(images(4, 3, 64, 64), seeded()).mean(dim=(0, 1, 3))
    assert depth[:8].mean() > depth[-8:].mean() + 0.2
    assert depth.min() >= 0
