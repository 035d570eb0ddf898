"""The reference AdaIR against the official one's golden outputs."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.goldens.recipe import load_case, load_spec
from torch import nn

from exda_primitives.models import AdaIR, Restormer
from exda_primitives.models.adair import FrequencyBlock
from exda_primitives.models.blocks import CrossAttention

from .checks import (
    FLOAT32_MODULE,
    FLOAT32_NETWORK,
    FLOAT64,
    IDENTITY,
    assert_official_state,
    assert_patches,
    build,
    worst,
)

SMALL = "adair-small"
BIG = "adair-default"
FREQUENCY_BLOCK = "module-adair_fremodule_dim16_heads4"
CROSS_ATTENTION = "attention-adair_cross_dim96_heads4"


@cache
def network(name: str) -> nn.Module:
    return build(name, AdaIR)


def tiny(decoder: bool = True) -> AdaIR:
    return AdaIR(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, decoder=decoder)


@pytest.mark.parametrize("name", [SMALL, BIG])
def test_state_dict_has_the_official_keys_in_the_official_order(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        assert_official_state(AdaIR(**spec["config"]), spec)


def test_defaults_are_the_official_ones() -> None:
    with torch.device("meta"):
        assert_official_state(AdaIR(), load_spec(BIG))


# One image of 64 x 96, two of 64 x 64, one of 64 x 96.
@pytest.mark.parametrize(("name", "index"), [(SMALL, 0), (SMALL, 1), (BIG, 3)])
def test_network_in_both_precisions(name: str, index: int) -> None:
    case = load_case(name, index)
    assert worst(network(name), case, torch.float32) <= FLOAT32_NETWORK
    assert worst(network(name), case, torch.float64) <= FLOAT64


def test_network_on_an_image_large_enough_for_low_frequencies() -> None:
    # 512 x 1024.
    case = load_case(SMALL, 2)
    assert case.info["fre"]["fre3"]["mask_half_size"] == [[1, 2]]
    assert worst(network(SMALL), case, torch.float32) <= FLOAT32_NETWORK


@pytest.mark.parametrize("index", range(3))
def test_frequency_block_in_both_precisions(index: int) -> None:
    block, case = build(FREQUENCY_BLOCK, FrequencyBlock), load_case(FREQUENCY_BLOCK, index)
    assert worst(block, case, torch.float32) <= FLOAT32_MODULE
    assert worst(block, case, torch.float64) <= FLOAT64


def test_frequency_block_has_the_official_keys_in_the_official_order() -> None:
    spec = load_spec(FREQUENCY_BLOCK)
    assert_official_state(FrequencyBlock(**spec["config"]), spec)


def test_cross_attention_in_both_precisions() -> None:
    attention = build(CROSS_ATTENTION, lambda num_head, **config: CrossAttention(num_heads=num_head, **config))
    for index in range(len(load_spec(CROSS_ATTENTION)["cases"])):
        case = load_case(CROSS_ATTENTION, index)
        assert worst(attention, case, torch.float32) <= FLOAT32_MODULE
        assert worst(attention, case, torch.float64) <= FLOAT64


def test_patch_preserves_the_output() -> None:
    assert_patches(network(BIG), {"mdta": 44, "cross": 9}, [(1, 3, 32, 24), (1, 3, 16, 40)], IDENTITY)


def test_without_frequency_blocks_it_is_restormer() -> None:
    restormer = Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    model = tiny(decoder=False)
    assert list(model.state_dict()) == list(restormer.state_dict())
    model.load_state_dict(restormer.state_dict())
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(model(x), restormer(x))


def test_gradients_reach_all_but_unused_parameters_and_the_rates_of_the_bands() -> None:
    model = tiny()
    model(torch.rand(1, 3, 16, 8)).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    rates = {name for name in model.state_dict() if "rate_conv" in name}
    assert len(rates) == 6
    assert without == set(load_spec(SMALL)["never_used"]) | rates


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="heads needs one entry for each of the 4 levels"):
        AdaIR(heads=[1, 2])
    with pytest.raises(ValueError, match="64 channels cannot be shared out equally among 3 heads"):
        AdaIR(dim=8, heads=[1, 2, 3, 8])


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        tiny()(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 8, got 12 x 16; pad by reflection"):
        tiny()(torch.rand(1, 3, 12, 16))


@torch.no_grad()
def test_half_precision() -> None:
    model = AdaIR(dim=16, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()
    image = torch.rand(1, 3, 40, 24)
    expected = model(image)
    found = model.bfloat16()(image.bfloat16())
    assert found.dtype is torch.bfloat16
    # Measured: 0.007 for outputs of up to 1.3, which have eight bits.
    assert (found - expected).abs().max() < 0.05
