"""Token maps: where the global tokens look in an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.lifecycle.networks import image, network, trained

import exda_primitives as exda
from exda_primitives.workbench.inspection import area, token_maps


@pytest.mark.parametrize("family", ["mdta", "cross", "histogram"])
def test_every_map_sums_to_one(family: str) -> None:
    found = token_maps(trained(family, config=exda.ExDAConfig(tokens=2)), [image()[0], image(height=17, width=40)[0]])
    for first, second in found.values():
        assert first.shape[1] == second.shape[1] == 2
        for maps in (first, second):
            assert (maps >= 0).all()
            assert torch.allclose(maps.sum((-2, -1)), torch.ones(maps.shape[:2]))
    assert [tuple(maps.shape) for maps in list(found.values())[-1]] == [(1, 2, 8, 12), (1, 2, 12, 20)]


def test_maps_of_a_half_precision_model_are_float32() -> None:
    model = trained().bfloat16()
    for (maps,) in token_maps(model, image()).values():
        assert maps.dtype == torch.float32
        assert torch.allclose(maps.sum((-2, -1)), torch.ones(maps.shape[:2]))


def test_a_model_without_tokens_is_refused() -> None:
    with pytest.raises(exda.NotPatchedError, match="Restormer"):
        token_maps(network(), image())


def test_the_area_of_a_uniform_and_of_a_single_pixel_map() -> None:
    flat, single = torch.full((4, 5), 1 / 20), torch.zeros(4, 5)
    single[2, 3] = 1
    assert torch.allclose(area(torch.stack([flat, single])), torch.tensor([1, 1 / 20]))


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_the_area_is_a_share_of_the_image(seed: int, height: int, width: int) -> None:
    maps = torch.randn(3, height * width, generator=torch.Generator().manual_seed(seed)).mul(4).softmax(-1)
    found = area(maps.unflatten(-1, (height, width)))
    assert (found <= 1 + 1e-5).all()
    assert (found >= (1 - 1e-5) / (height * width)).all()
