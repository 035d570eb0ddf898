"""The reference Restormer against the official one's golden outputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tests.goldens.recipe import load_case, load_spec
from torch import nn

from exda_primitives.models import Restormer
from exda_primitives.models.blocks import Attention, LayerNorm

from .checks import FLOAT32_MODULE, FLOAT32_NETWORK, FLOAT64, assert_official_state, build, worst

SMALL = "restormer-small"
BIG = ["restormer-default", "restormer-denoise_biasfree", "restormer-gray_biasfree", "restormer-dualpixel"]


@cache
def network(name: str) -> nn.Module:
    return build(name, Restormer)


def small(**changes: Any) -> Restormer:
    return Restormer(**{"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1} | changes)


@pytest.mark.parametrize("name", [SMALL, *BIG])
def test_state_dict_has_the_official_keys_in_the_official_order(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        assert_official_state(Restormer(**spec["config"]), spec)


def test_defaults_are_the_official_ones() -> None:
    with torch.device("meta"):
        state = Restormer().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == load_spec("restormer-default")["state_dict"]


@pytest.mark.parametrize("index", range(5))
def test_small_network_in_float32(index: int) -> None:
    assert worst(network(SMALL), load_case(SMALL, index), torch.float32) <= FLOAT32_NETWORK


@pytest.mark.parametrize("index", range(5))
def test_small_network_in_float64(index: int) -> None:
    assert worst(network(SMALL), load_case(SMALL, index), torch.float64) <= FLOAT64


# The published networks differ only in the norm and the channels in and out: two of them are enough.
@pytest.mark.parametrize("name", BIG[2:])
def test_published_networks_in_both_precisions(name: str) -> None:
    model, oblong = build(name, Restormer), load_case(name, 3)
    assert worst(model, oblong, torch.float32) <= FLOAT32_NETWORK
    assert worst(model, oblong, torch.float64) <= FLOAT64


def test_attention_with_bias_in_both_precisions() -> None:
    name = "attention-mdta_dim96_heads2_bias"
    attention = build(name, Attention)
    assert [(key, list(value.shape)) for key, value in attention.state_dict().items()] == list(
        load_spec(name)["state_dict"].items()
    )
    case = load_case(name, 0)
    assert worst(attention, case, torch.float32) <= FLOAT32_MODULE
    assert worst(attention, case, torch.float64) <= FLOAT64


def test_bias_reaches_every_convolution_but_the_embedding_and_the_resampling() -> None:
    model = small(bias=True, dual_pixel_task=True, inp_channels=6)
    without = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.bias is None}
    assert without == {
        "patch_embed.proj",
        "down1_2.body.0",
        "down2_3.body.0",
        "down3_4.body.0",
        "up4_3.body.0",
        "up3_2.body.0",
        "up2_1.body.0",
    }
    assert model(torch.rand(1, 6, 8, 16)).shape == (1, 3, 8, 16)


def test_gradients_reach_every_parameter_on_the_smallest_image() -> None:
    model = small()
    model(torch.rand(1, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (1, 1, 3, 8, 8)])
def test_anything_but_a_batch_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        small()(torch.rand(shape))


@pytest.mark.parametrize("size", [(12, 16), (16, 9), (7, 7)])
def test_size_that_does_not_halve_three_times_says_how_to_pad(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 8, got {size[0]} x {size[1]}; pad by reflection"):
        small()(torch.rand(1, 3, *size))


def test_padding_by_reflection_works_as_advised() -> None:
    x = torch.rand(1, 3, 13, 21)
    height, width = x.shape[-2:]
    padded = nn.functional.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
    assert small()(padded)[..., :height, :width].shape == x.shape


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks needs one entry for each of the 4 levels"):
        Restormer(num_blocks=[1, 1, 1])
    with pytest.raises(ValueError, match="heads needs one entry for each of the 4 levels"):
        Restormer(heads=[1, 2, 4, 8, 16])
    with pytest.raises(ValueError, match="8 channels cannot be shared out equally among 3 heads"):
        small(heads=[3, 2, 4, 8])
    with pytest.raises(ValueError, match="'WithBias' or 'BiasFree', got 'Without'"):
        LayerNorm(8, "Without")  # type: ignore[arg-type]


# Export and compilation take time per block: one block, at an eighth of the image's side.
ONE_BLOCK = {"num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0}


def test_exports_with_any_size() -> None:
    height, width = 8 * torch.export.Dim("rows", min=2, max=16), 8 * torch.export.Dim("columns", min=2, max=16)
    model = small(**ONE_BLOCK).eval()
    program = torch.export.export(model, (torch.rand(2, 3, 32, 24),), dynamic_shapes=({2: height, 3: width},)).module()
    x = torch.rand(2, 3, 16, 40)
    torch.testing.assert_close(program(x), model(x))


def test_compiles_in_one_graph() -> None:
    model = small(**ONE_BLOCK).eval()
    x = torch.rand(1, 3, 16, 24)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
