"""torchao's quantised linear layers in a patched XCiT are called, as in the host."""

import copy
import re

import pytest
import torch
from tests.patching.models import train_new_parameters
from timm.models.xcit import Xcit
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)

import exda_primitives as exda

CONFIGS = [Int8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig, Float8WeightOnlyConfig]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Xcit(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2, cls_attn_layers=1, num_classes=8).eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
@torch.no_grad()
def test_patched_network_can_be_quantised(network, image, config):
    host, model = copy.deepcopy(network), copy.deepcopy(network)
    quantize_(host, config())
    exda.patch(model)
    quantize_(model, config())
    expected = host(image)
    # Where activations are quantised too, a rounding difference can become a whole quantisation step.
    torch.testing.assert_close(model(image), expected, rtol=0, atol=2e-2 * expected.abs().max().item())
    before = model(image)
    train_new_parameters(model)
    found = model(image)
    assert (found - before).abs().max() > 1e-3
    with exda.backend("reference"):
        torch.testing.assert_close(model(image), found, rtol=0, atol=2e-2 * found.abs().max().item())


def test_network_quantised_before_patching_is_a_near_miss(network):
    model = copy.deepcopy(network)
    quantize_(model, Int8WeightOnlyConfig())
    report = exda.plan(model)
    assert not report.matches
    (near_miss,) = report.near_misses
    assert re.search(r"qkv\.weight is quantised or sharded \(\w+\); patch before", near_miss.reason)
