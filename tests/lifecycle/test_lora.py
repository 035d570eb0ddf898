"""PEFT's LoRA on a patched network, new layers included, and on a network before patching."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from tests.patching import tokens
from tests.patching.hosts import MDTA, Cross, Histogram
from tests.patching.models import Net, image, train_new_parameters

import exda_primitives as exda

# Without ``value.dwconv``: PEFT does not adapt depthwise convolutions.
NEW = ["value.conv_in", "value.conv_out", "token.phi"]
NETWORKS = {
    "mdta": (lambda: Net(MDTA()), ["qkv", "project_out"]),
    "cross": (lambda: Net(Cross(), inputs=2), ["q", "kv", "project_out"]),
    "histogram": (lambda: Net(Histogram()), ["qkv", "project_out"]),
    "xca": (tokens.two_blocks, ["qkv", "proj"]),
}


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    torch.manual_seed(0)
    return NETWORKS[family][0]().double().eval()


def lora(model, targets, dropout=0.0):
    inject_adapter_in_model(LoraConfig(target_modules=targets, r=2, lora_dropout=dropout), model)
    model.eval()
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


@torch.no_grad()
def move(parameters):
    """Adds noise, since LoRA's second matrix starts at 0, which hides the gradient of the first."""
    for parameter in parameters:
        parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("position", ["before", "after"])
def test_adapters_on_a_patched_network_act_and_get_gradients(family, model, position):
    x = image(dtype=torch.float64)
    exda.patch(model, value_position=position)
    train_new_parameters(model)
    with torch.no_grad():
        before = model(x)
    adapters = lora(model, [*NEW, *NETWORKS[family][1]])
    assert len(adapters) == 2 * len(model.blocks) * (len(NEW) + len(NETWORKS[family][1]))
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-12)
    move(adapters)
    found = model(x)
    assert not torch.allclose(found, before, atol=1e-3)
    gradients = torch.autograd.grad(found.square().mean(), adapters)
    with exda.backend("reference"):
        again = model(x)
        expected = torch.autograd.grad(again.square().mean(), adapters)
    torch.testing.assert_close(found, again, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_adapters_on_new_layers_are_new_parameters(family, model):
    exda.patch(model)
    adapters = lora(model, [*NEW, *NETWORKS[family][1]])
    held = [*exda.new_parameters(model)]
    ours = [parameter for parameter in adapters if any(parameter is each for each in held)]
    assert len(ours) == 2 * len(model.blocks) * len(NEW)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@torch.no_grad()
def test_network_with_adapters_is_patched_and_unpatched(family, model, dropout):
    x = image(dtype=torch.float64)
    move(lora(model, NETWORKS[family][1], dropout))
    before, layers = model(x), dict(model.blocks[0].attn.named_children())
    assert {match.family for match in exda.patch(model).matches} == {family}
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-9)
    train_new_parameters(model)
    assert not torch.allclose(model(x), before, atol=1e-3)
    exda.unpatch(model)
    assert dict(model.blocks[0].attn.named_children()) == layers
    assert torch.equal(model(x), before)


@torch.no_grad()
def test_merged_adapters_keep_the_patch(family, model):
    x = image(dtype=torch.float64)
    exda.patch(model)
    train_new_parameters(model)
    wrapped = get_peft_model(model, LoraConfig(target_modules=[*NEW, *NETWORKS[family][1]], r=2))
    move([parameter for name, parameter in wrapped.named_parameters() if "lora_" in name])
    expected = wrapped(x)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged(x), expected, rtol=1e-9, atol=1e-9)
    assert exda.is_patched(merged)
    exda.unpatch(merged)
    assert isinstance(merged.blocks[0].attn, type(NETWORKS[family][0]().blocks[0].attn))


def test_modules_to_save_trains_whole_primitives(family, model):
    x = image(dtype=torch.float64)
    exda.patch(model)
    train_new_parameters(model)
    with torch.no_grad():
        expected = model(x)
    config = LoraConfig(target_modules=NETWORKS[family][1], modules_to_save=["value", "token"], r=2)
    wrapped = get_peft_model(model, config)
    torch.testing.assert_close(wrapped(x), expected, rtol=1e-9, atol=1e-9)
    wrapped(x).square().mean().backward()
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.grad is not None}
    for part in ("value.modules_to_save.default.conv_in.weight", "token.modules_to_save.default.phi.weight"):
        assert any(name.endswith(part) for name in trained)
