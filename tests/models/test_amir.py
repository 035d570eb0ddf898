"""The reference AMIR against the official one's golden outputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tests.goldens.recipe import load_case, load_spec
from torch import nn

from exda_primitives.models import AMIR
from exda_primitives.models.amir import MixtureOfExperts

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

NAME = "amir-default"
MIXTURE = "module-amir_moe_dim42"


@cache
def network() -> nn.Module:
    return build(NAME, AMIR)


def tiny() -> AMIR:
    return AMIR(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)


def mixture(input_size: int, mlp_ratio: float, **_: Any) -> MixtureOfExperts:
    return MixtureOfExperts(input_size, mlp_ratio)


def test_state_dict_has_the_official_keys_in_the_official_order() -> None:
    spec = load_spec(NAME)
    with torch.device("meta"):
        assert_official_state(AMIR(**spec["config"]), spec)
        assert_official_state(AMIR(), spec)


def test_network_in_both_precisions() -> None:
    # 64 x 96.
    case = load_case(NAME, 3)
    assert worst(network(), case, torch.float32) <= FLOAT32_NETWORK
    assert worst(network(), case, torch.float64) <= FLOAT64


def test_network_on_two_images() -> None:
    assert worst(network(), load_case(NAME, 4), torch.float64) <= FLOAT64


def test_mixture_of_experts_in_both_precisions() -> None:
    module = build(MIXTURE, mixture)
    for index in range(len(load_spec(MIXTURE)["cases"])):
        case = load_case(MIXTURE, index)
        assert worst(module, case, torch.float32) <= FLOAT32_MODULE
        assert worst(module, case, torch.float64) <= FLOAT64


def test_an_expert_that_overflows_harms_nothing_unless_it_is_chosen() -> None:
    module = MixtureOfExperts(4, 1)
    nn.init.constant_(module.experts[3].fc2.bias, 1e3)
    with torch.no_grad():
        module.w_gate[4:, 3] = -1
    x = torch.rand(1, 4, 2, 2, requires_grad=True)
    out = module(x, torch.ones(1, 4))
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_an_expert_whose_exponential_underflows_gives_the_logarithm_of_epsilon() -> None:
    module = MixtureOfExperts(4, 1)
    for expert in module.experts:
        nn.init.constant_(expert.fc2.bias, -1e3)
    out = module(torch.rand(1, 4, 2, 2), torch.ones(1, 4))
    assert torch.allclose(out, torch.tensor(2.220446049250313e-16).log())


def test_patch_preserves_the_output() -> None:
    assert_patches(network(), {"mdta": 51}, [(1, 1, 32, 24), (1, 1, 16, 40)], IDENTITY)


def test_gradients_reach_all_but_parameters_of_the_official_training() -> None:
    model = tiny()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
    model(torch.rand(2, 1, 16, 24)).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(load_spec(NAME)["used_without_gradient"])


def test_arguments_and_sizes_that_cannot_run_are_refused() -> None:
    with pytest.raises(ValueError, match="dual_pixel_task must be False"):
        AMIR(dual_pixel_task=True)
    with pytest.raises(ValueError, match="heads needs one entry for each of the 4 levels"):
        AMIR(heads=[1, 2])
    with pytest.raises(ValueError, match="at least 9 x 9 pixels, got 8 x 16"):
        tiny()(torch.rand(1, 1, 8, 16))


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        tiny()(torch.rand(1, 16, 16))
    with pytest.raises(ValueError, match=r"multiples of 8, got 12 x 16; pad by reflection"):
        tiny()(torch.rand(1, 1, 12, 16))
