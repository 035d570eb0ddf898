"""What holds for every degradation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workbench.data.images import random_images, seeded
from torch import Tensor

from exda_primitives.errors import ConfigError, ImageError
from exda_primitives.workbench.data.degradations import CDD11, DEGRADATIONS, degrade

each = pytest.mark.parametrize("name", DEGRADATIONS)


def test_the_names_of_the_degradations() -> None:
    assert set(DEGRADATIONS) == {"noise15", "noise25", "noise50", "blur", *CDD11}
    assert len(CDD11) == 11


@given(
    name=st.sampled_from(sorted(DEGRADATIONS)),
    batch=st.lists(st.integers(1, 2), max_size=1),
    size=st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_any_size_is_kept_with_values_in_range(
    name: str, batch: list[int], size: tuple[int, int, int], seed: int
) -> None:
    clean = random_images(*batch, *size)
    degraded = degrade(clean, name, seed)
    assert degraded.shape == clean.shape
    assert degraded.dtype is torch.float32
    assert degraded.isfinite().all()
    assert degraded.min() >= 0
    assert degraded.max() <= 1


@each
def test_the_result_depends_on_the_seed_alone(name: str) -> None:
    clean = random_images(2, 3, 40, 40)
    first = degrade(clean, name, 1)
    torch.rand(5)
    assert torch.equal(first, degrade(clean, name, 1))
    assert not torch.equal(first, degrade(clean, name, 2))


@each
def test_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    degrade(random_images(1, 3, 16, 16), name, 0)
    assert torch.equal(before, torch.get_rng_state())


@each
def test_the_image_is_degraded_and_the_input_left_alone(name: str) -> None:
    clean = random_images(3, 64, 64)
    copy = clean.clone()
    degraded = degrade(clean, name, 0)
    assert torch.equal(clean, copy)
    assert (degraded - clean).square().mean() > 1e-3


@each
def test_one_image_is_a_batch_of_one(name: str) -> None:
    clean = random_images(3, 20, 30)
    assert torch.equal(degrade(clean, name, 0), degrade(clean[None], name, 0)[0])


@each
def test_images_of_a_batch_are_degraded_differently(name: str) -> None:
    first, second = degrade(random_images(1, 3, 48, 48).expand(2, -1, -1, -1), name, 0)
    assert not torch.equal(first, second)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_the_random_numbers_with_it(name: str, dtype: torch.dtype) -> None:
    clean = random_images(1, 3, 24, 24)
    degraded = degrade(clean.to(dtype), name, 0)
    assert degraded.dtype is dtype
    # bfloat16 has 8 significant bits, and a composition rounds to them several times.
    tolerance = 1e-6 if dtype is torch.float64 else 4 / 256
    torch.testing.assert_close(degraded.double(), degrade(clean, name, 0).double(), atol=tolerance, rtol=0)


@each
def test_the_result_is_on_the_images_device(name: str) -> None:
    degraded = degrade(torch.empty(2, 3, 20, 20, device="meta"), name, 0)
    assert degraded.device.type == "meta"
    assert degraded.shape == (2, 3, 20, 20)


@each
@pytest.mark.parametrize(
    "bad", [torch.rand(8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.rand(3, 0, 8), torch.rand(0, 3, 8, 8)]
)
def test_bad_input_is_refused(name: str, bad: Tensor) -> None:
    with pytest.raises(ImageError, match=r"expected float images \(B, C, H, W\) or \(C, H, W\)"):
        DEGRADATIONS[name](bad, seeded())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fog'; there are: noise15, noise25, noise50, blur, low, haze, rain.*snow"):
        degrade(random_images(3, 8, 8), "fog", 0)
