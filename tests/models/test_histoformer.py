"""The reference Histoformer against the official one's golden outputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tests.goldens.recipe import load_case, load_spec
from torch import nn

from exda_primitives.models import Histoformer
from exda_primitives.models.histoformer import HistogramAttention, TransformerBlock

from .checks import (
    FLOAT32_MODULE,
    FLOAT32_NETWORK,
    FLOAT64,
    assert_official_state,
    assert_patches,
    build,
    worst,
)

SMALL = "histoformer-small"
BIG = "histoformer-official"
BIAS_FREE_BLOCK = "module-histoformer_block_dim72_heads2"
ATTENTIONS = ["attention-histoformer_dim36_heads1", "attention-histoformer_dim72_heads2"]


@cache
def network(name: str) -> nn.Module:
    return build(name, Histoformer)


def tiny(**changes: Any) -> Histoformer:
    return Histoformer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, ffn_expansion_factor=2.5, **changes)


@pytest.mark.parametrize("name", [SMALL, BIG])
def test_state_dict_has_the_official_keys_in_the_official_order(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        assert_official_state(Histoformer(**spec["config"]), spec)


# At the official size, images of 64 x 96, 40 x 56 and 8 x 8.
@pytest.mark.parametrize(
    ("name", "index"), [(SMALL, index) for index in range(11)] + [(BIG, index) for index in (3, 5, 6)]
)
def test_network_in_float64(name: str, index: int) -> None:
    assert worst(network(name), load_case(name, index), torch.float64) <= FLOAT64


@pytest.mark.parametrize("name", [SMALL, BIG])
def test_network_in_float32_where_no_values_are_close_enough_to_change_places(name: str) -> None:
    cases = [
        load_case(name, index) for index, info in enumerate(load_spec(name)["cases"]) if info["float32_comparable"]
    ]
    assert len(cases) >= 4
    for case in cases:
        assert worst(network(name), case, torch.float32) <= FLOAT32_NETWORK


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_in_both_precisions(name: str) -> None:
    attention = build(name, lambda ifBox, **config: HistogramAttention(**config))  # noqa: N803 - and never used
    for index in range(len(load_spec(name)["cases"])):
        case = load_case(name, index)
        assert worst(attention, case, torch.float32) <= FLOAT32_MODULE
        assert worst(attention, case, torch.float64) <= FLOAT64


def test_block_without_bias_in_its_norms() -> None:
    block = build(
        BIAS_FREE_BLOCK,
        lambda LayerNorm_type, **config: TransformerBlock(norm_type=LayerNorm_type, **config),  # noqa: N803
    )
    case = load_case(BIAS_FREE_BLOCK, 0)
    assert worst(block, case, torch.float32) <= FLOAT32_MODULE
    assert worst(block, case, torch.float64) <= FLOAT64


def test_attention_leaves_its_input_as_it_is() -> None:
    x = torch.rand(1, 8, 6, 5)
    kept = x.clone()
    HistogramAttention(8, 2, False)(x)
    assert torch.equal(x, kept)


def test_patch_preserves_the_output_to_the_last_bit() -> None:
    assert_patches(network(BIG), {"histogram": 40}, [(1, 3, 32, 24), (1, 3, 16, 40)], 0.0)


def test_defaults_build_but_cannot_run() -> None:
    with torch.device("meta"):
        model = Histoformer()
        assert model.patch_embed.proj.out_channels == 48
        assert len(model.encoder_level2) == 6
        with pytest.raises(ValueError, match="multiple of 4, but 48 channels have 127"):
            model(torch.rand(1, 3, 8, 8))


def test_gradients_reach_every_parameter() -> None:
    model = tiny()
    model(torch.rand(1, 3, 16, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_skip_conv_of_the_dual_pixel_task_is_never_used() -> None:
    model = tiny(dual_pixel_task=True, bias=True)
    model(torch.rand(1, 3, 8, 8)).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"skip_conv.weight", "skip_conv.bias"}


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks needs one entry for each of the 4 levels"):
        Histoformer(num_blocks=[1, 1, 1])
    with pytest.raises(ValueError, match="8 channels cannot be shared out equally among 3 heads"):
        Histoformer(dim=8, heads=[3, 2, 4, 8])
    with pytest.raises(ValueError, match="'WithBias' or 'BiasFree', got 'Without'"):
        Histoformer(dim=8, LayerNorm_type="Without")  # type: ignore[arg-type]


def test_images_that_do_not_fit_are_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        model(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 8, got 12 x 16; pad by reflection"):
        model(torch.rand(1, 3, 12, 16))
