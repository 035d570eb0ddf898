"""LoRA computes the same beside its layers, merged and from a file; layers where it would not are left out."""

import copy

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from tests.workbench.training.lora_hosts import EXACT, LEFT_OUT, TwoLayers, made, shared, tied
from torch import nn

import exda_primitives as exda
from exda_primitives import adaptation
from exda_primitives.workbench.training.config import LoraConfig
from exda_primitives.workbench.training.lora import add_lora, lora_parameters, without_lora


def image():
    return torch.rand(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def randomised(net):
    """Gives LoRA's matrices random values, as if they were trained."""
    with torch.no_grad():
        for parameter in lora_parameters(net).values():
            parameter.normal_(std=0.3)
    return net.eval()


def check_exact(host, net, path):
    """Compares a trained network with itself after merging, and with its host after loading its file."""
    x = image()
    trained = net(x)
    assert (trained - host(x)).abs().max() > 1e-2
    merged = without_lora(net, merge=True)
    assert not lora_parameters(merged)
    torch.testing.assert_close(merged(x), trained)
    torch.testing.assert_close(without_lora(net, merge=False)(x), host(x), rtol=0, atol=0)
    adaptation.save(net, path)
    adaptation.load(host, path)
    torch.testing.assert_close(host(x), trained)
    assert host.state_dict().keys() == merged.state_dict().keys()


@pytest.mark.parametrize("name", EXACT)
def test_what_is_merged_and_loaded_is_what_was_trained(name, tmp_path):
    net = made(EXACT[name])
    host, before = copy.deepcopy(net), net(image())
    assert add_lora(net, LoraConfig(2, "all")) == {}
    torch.testing.assert_close(net.eval()(image()), before)
    check_exact(host, randomised(net), tmp_path / "lora.safetensors")


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", LEFT_OUT)
def test_layers_that_cannot_have_it_are_left_out_with_the_reason(name, tmp_path):
    build, expected = LEFT_OUT[name]
    # A further layer that can have LoRA.
    net = made(lambda: nn.Sequential(build(), nn.Conv2d(3, 3, 1)))
    host = made(lambda: nn.Sequential(build(), nn.Conv2d(3, 3, 1)))
    left_out = add_lora(net, LoraConfig(2, "all"))
    assert left_out == {f"0.{layer}": _with_prefix(reason) for layer, reason in expected.items()}
    check_exact(host, randomised(net), tmp_path / "lora.safetensors")


def _with_prefix(reason):
    return reason.replace("also ", "also 0.")


def test_a_network_of_tied_layers_alone_is_refused_with_the_reasons():
    with pytest.raises(
        exda.ConfigError, match=r"no layer that can have it.\n  first: its weight is also second.weight\n"
    ):
        add_lora(made(tied), LoraConfig(2, "all"))


def test_a_shared_layer_has_one_lora_which_all_its_calls_train():
    net = made(shared)
    add_lora(net, LoraConfig(2, "all"))
    assert net.first is net.second
    randomised(net)(image()).square().mean().backward()
    given = {name: parameter.grad for name, parameter in lora_parameters(net).items()}
    weight = without_lora(net, merge=True).first.weight.detach()
    a, b = (net.first.lora_A.default.weight, net.first.lora_B.default.weight)
    # By the chain rule from the merged weight's gradient: W = W0 + B A.
    merged = without_lora(net, merge=True)
    for parameter in merged.parameters():
        parameter.grad = None
    merged(image()).square().mean().backward()
    gradient = merged.first.weight.grad.flatten(1)
    assert gradient.shape == weight.flatten(1).shape
    torch.testing.assert_close(given["first.lora_A.default.weight"].flatten(1), b.flatten(1).mT @ gradient)
    torch.testing.assert_close(given["first.lora_B.default.weight"].flatten(1), gradient @ a.flatten(1).mT)


def by_peft(build, **options):
    net = made(build)
    given = {"r": 2, "lora_alpha": 2, "target_modules": ["first"]} | options
    inject_adapter_in_model(PeftConfig(**given), net)
    return randomised(net)


def merged():
    net = by_peft(TwoLayers)
    net.first.merge()
    return net


def twice():
    net = by_peft(TwoLayers)
    inject_adapter_in_model(PeftConfig(r=2, lora_alpha=2, target_modules=["first"]), net, adapter_name="second")
    return net


FOREIGN = {
    "scaled": (lambda: by_peft(TwoLayers, lora_alpha=4), "first: its LoRA is scaled by 2, expected 1"),
    "dora": (lambda: by_peft(TwoLayers, use_dora=True), "first: has other LoRA than one pair of matrices"),
    "bias": (lambda: by_peft(TwoLayers, lora_bias=True), "first: has other LoRA than one pair of matrices"),
    "two adapters": (twice, "first: has other LoRA than one pair of matrices"),
    "merged": (merged, "first: its LoRA is merged or disabled"),
    "padding": (lambda: by_peft(EXACT["reflect"]), "first: its LoRA has padding_mode 'zeros', the layer 'reflect'"),
    "dilation": (lambda: by_peft(EXACT["dilated, same"]), r"first: its LoRA has dilation \(1, 1\), the layer \(2, 1\)"),
    "shared": (lambda: by_peft(shared), "first: is also second, without LoRA"),
    "tied": (lambda: by_peft(tied), "first: its weight is also second.weight"),
    "hooked": (lambda: by_peft(LEFT_OUT["hooked"][0]), "first: has hooks or a forward of its own"),
    "grouped": (
        lambda: by_peft(lambda: TwoLayers(nn.Conv2d(3, 3, 1, groups=3)), r=3, lora_alpha=3),
        "first: is grouped",
    ),
}


@pytest.mark.filterwarnings(
    "ignore:LoRA adapter added to ConvNd layer with groups", "ignore:Already found a `peft_config`"
)
@pytest.mark.parametrize("name", FOREIGN)
def test_lora_of_which_the_file_would_compute_otherwise_is_not_saved(name, tmp_path):
    build, message = FOREIGN[name]
    with pytest.raises(exda.CheckpointError, match=f"would compute otherwise than the network.*{message}"):
        adaptation.save(build(), tmp_path / "lora.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_merged_into_tied_weights(tmp_path):
    net = made(TwoLayers)
    add_lora(net, LoraConfig(2, "all"))
    adaptation.save(randomised(net), tmp_path / "lora.safetensors")
    host = made(tied)
    state = copy.deepcopy(host.state_dict())
    with pytest.raises(
        exda.CheckpointError, match=r"LoRA of first cannot be merged, as its weight is also second\.weight"
    ):
        adaptation.load(host, tmp_path / "lora.safetensors", any_host=True)
    assert all(torch.equal(state[name], each) for name, each in host.state_dict().items())
