"""The reference PromptIR against the official one's golden outputs."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.goldens.recipe import load_case, load_spec
from torch import nn

from exda_primitives.models import PromptIR

from .checks import FLOAT32_NETWORK, FLOAT64, IDENTITY, assert_official_state, assert_patches, build, worst

NAME = "promptir-default"


@cache
def network() -> nn.Module:
    return build(NAME, PromptIR)


def shallow() -> PromptIR:
    return PromptIR(num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, ffn_expansion_factor=1)


def test_state_dict_has_the_official_keys_in_the_official_order() -> None:
    spec = load_spec(NAME)
    with torch.device("meta"):
        assert_official_state(PromptIR(**spec["config"]), spec)
        assert_official_state(PromptIR(), spec)


def test_network_in_both_precisions() -> None:
    # 64 x 96.
    case = load_case(NAME, 3)
    assert worst(network(), case, torch.float32) <= FLOAT32_NETWORK
    assert worst(network(), case, torch.float64) <= FLOAT64


def test_network_on_two_images() -> None:
    assert worst(network(), load_case(NAME, 4), torch.float64) <= FLOAT64


@pytest.mark.parametrize("index", [0, 5])
def test_network_where_the_prompts_are_not_resized_and_where_they_are_enlarged(index: int) -> None:
    assert worst(network(), load_case(NAME, index), torch.float32) <= FLOAT32_NETWORK


def test_patch_preserves_the_output() -> None:
    assert_patches(network(), {"mdta": 47}, [(1, 3, 32, 24), (1, 3, 16, 40)], IDENTITY)


def test_gradients_reach_all_but_unused_parameters() -> None:
    model = shallow()
    model(torch.rand(1, 3, 16, 8)).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(load_spec(NAME)["never_used"])


def test_arguments_that_cannot_run_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be 48, the prompts' widths being fixed, got 32"):
        PromptIR(dim=32)
    with pytest.raises(ValueError, match="decoder must be True"):
        PromptIR(decoder=False)
    with pytest.raises(ValueError, match="heads needs one entry for each of the 4 levels"):
        PromptIR(heads=[1, 2])


def test_images_that_do_not_fit_are_refused() -> None:
    with torch.device("meta"):
        model = shallow()
        with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
            model(torch.rand(3, 8, 8))
        with pytest.raises(ValueError, match=r"multiples of 8, got 12 x 16; pad by reflection"):
            model(torch.rand(1, 3, 12, 16))
