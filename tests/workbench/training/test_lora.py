"""Training with LoRA, alone and with primitives, and training of the norms alone."""

import copy
import sys

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.workbench.training.runs import PowerError, config, final_state, run, same
from torch import nn

import exda_primitives as exda
from exda_primitives.workbench.training import prepare
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.config import LoraConfig
from exda_primitives.workbench.training.lora import add_lora, lora_parameters, without_lora
from exda_primitives.workbench.training.lora_layers import problems

SMALL = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 1}


@pytest.fixture
def host():
    torch.manual_seed(0)
    return exda.models.Restormer(**SMALL).double().eval()


def randomised(net):
    """Gives LoRA's matrices random values, so that they have an effect."""
    with torch.no_grad():
        for parameter in lora_parameters(net).values():
            parameter.normal_(std=0.1)
    return net


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("patched", [False, True])
def test_lora_can_be_added_merged_and_left_out(host, layers, patched):
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    bare = copy.deepcopy(host)
    if patched:
        exda.patch(host, exda.ExDAConfig(init="paper"))
    before = host(image)
    state = {name: each.clone() for name, each in host.state_dict().items()}
    flags = {parameter: parameter.requires_grad for parameter in host.parameters()}
    add_lora(host, LoraConfig(2, layers))
    host.eval()
    torch.testing.assert_close(host(image), before)
    assert all(parameter.requires_grad is flag for parameter, flag in flags.items())
    after = randomised(host)(image)
    assert (after - before).abs().max() > 1e-3
    merged, left_out = (without_lora(host, merge=merge) for merge in (True, False))
    torch.testing.assert_close(merged(image), after)
    assert same(dict(left_out.state_dict()), state)
    if patched:
        exda.unpatch(left_out)
    assert torch.equal(left_out(image), bare(image))
    # The network itself keeps its LoRA.
    assert lora_parameters(host)


def adaptable(net, layers):
    """The layers that can have LoRA; all of this host can."""
    found = problems(net, layers)
    assert not any(found.values())
    return list(found)


def test_the_layers_that_get_lora(host):
    attention, everywhere = adaptable(host, "attention"), adaptable(host, "all")
    assert attention == [f"{level}.0.attn.{layer}" for level in ("encoder_level1", "latent") for layer in _LAYERS] + [
        f"decoder_level1.0.attn.{layer}" for layer in _LAYERS
    ]
    grouped = [name for name, module in host.named_modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert set(everywhere).isdisjoint(grouped)
    assert {"patch_embed.proj", "output", *attention} < set(everywhere)
    exda.patch(host, include="latent")
    assert (adaptable(host, "attention"), adaptable(host, "all")) == (attention, everywhere)
    exda.unpatch(host)
    exda.patch(host)
    # The primitives' layers are not the host's, and get none.
    assert (adaptable(host, "attention"), adaptable(host, "all")) == (attention, everywhere)


_LAYERS = ("qkv", "project_out")


def test_the_number_of_lora_parameters(host):
    add_lora(host, LoraConfig(3))
    channels = [8, 64, 16]
    # 3 (C + 3C) and 3 (C + C) of each attention.
    assert sum(each.numel() for each in lora_parameters(host).values()) == sum(18 * c for c in channels)


@pytest.mark.parametrize("primitives", [None, {"init": "identity"}])
def test_a_frozen_host_stays_and_all_new_parameters_are_trained(tmp_path, primitives):
    configuration = config(tmp_path, primitives=primitives, lora={"rank": 2}, recipe={"train": "new", "seed": 3})
    begin = build(configuration).net
    result = run(configuration, tmp_path / "out")["runs"][0]
    new = [*exda.new_parameters(begin), *lora_parameters(begin).values()]
    assert result["trained_parameters"] == sum(each.numel() for each in new)
    saved = {name.removeprefix("net."): each for name, each in final_state(tmp_path / "out")["state_dict"].items()}
    ours = {id(parameter) for parameter in new}
    for name, parameter in begin.named_parameters():
        assert torch.equal(saved[name], parameter) is (id(parameter) not in ours), name
    # The file holds a network that needs no PEFT.
    net = exda.models.create("restormer", tmp_path / "out" / "weights.safetensors")
    assert exda.is_patched(net) is (primitives is not None)
    begin.load_state_dict(saved)
    begin.eval()
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(net(image), begin(image))


def test_the_whole_network_can_be_trained_with_lora(tmp_path):
    configuration = config(tmp_path, primitives=None, lora={"rank": 1})
    plan = prepare(configuration, tmp_path / "out", accelerator="cpu")
    assert all(parameter.requires_grad for parameter in plan.network.net.parameters())
    console = Console(record=True, width=200)
    plan.print(console)
    # C + 3C and C + C of each attention.
    assert f" {6 * (8 + 64 + 16)} of them new" in console.export_text()


def test_an_interrupted_run_gives_the_same_result(tmp_path):
    configuration = config(tmp_path, lora={"rank": 2}, recipe={"train": "new", "ema": 0.5})
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "often", stop=3)
    run(configuration, tmp_path / "often")
    assert same(final_state(tmp_path / "often"), final_state(tmp_path / "whole"))


def test_norms_are_trained_alone(tmp_path):
    configuration = config(tmp_path, primitives=None, recipe={"train": "norms"})
    trained = {name for name, each in build(configuration).net.named_parameters() if each.requires_grad}
    assert trained
    assert all(".norm" in name for name in trained)
    run(configuration, tmp_path / "out")
    begin = build(configuration).net.state_dict()
    saved = load_file(tmp_path / "out" / "weights.safetensors")
    assert {name for name in begin if not torch.equal(begin[name], saved[name])} == trained


def test_missing_layers_and_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(exda.ConfigError, match=r"lora\.rank: found 0"):
        config(tmp_path, lora={"rank": 0})
    with pytest.raises(exda.ConfigError, match=r"lora\.layers: found 'attention', but there is no layer"):
        add_lora(nn.Sequential(nn.Conv2d(3, 3, 1)), LoraConfig(1))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(exda.ExDAError, match=r"pip install .*\"peft>=0\.15\""):
        build(config(tmp_path, lora={"rank": 1}))
    biasless = {"name": "restormer", "arguments": SMALL | {"num_blocks": [0, 0, 0, 0]}}
    with pytest.raises(exda.ConfigError, match="found 'norms', but the network has no parameters of one dimension"):
        build(config(tmp_path, model=biasless, primitives=None, recipe={"train": "norms"}))
