"""State dicts of patched networks in third-party code that treats every entry as a weight."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_model, save_model
from timm.utils import ModelEmaV2
from torch.func import functional_call

import exda_primitives as exda

from .networks import FEW_BLOCKS, image, network, trained

CONFIG = exda.ExDAConfig(tokens=3, value_position="after", scale="mean")


@pytest.fixture(scope="module")
def made():
    return trained(config=CONFIG, **FEW_BLOCKS)


@pytest.fixture
def model(made):
    return copy.deepcopy(made)


@torch.no_grad()
def restored(net):
    return net.eval()(image())


def rebuilt(state, path):
    torch.save(state, path)
    return exda.models.create(checkpoint=path)


def test_average_of_timms_model_ema_is_rebuilt(model, tmp_path):
    average = ModelEmaV2(model, decay=0.9)
    with torch.no_grad():
        for _ in range(5):
            for parameter in model.parameters():
                parameter.add_(0.01)
            average.update(model)
    made = rebuilt(average.module.state_dict(), tmp_path / "average.pth")
    assert exda.config_of(made) == CONFIG
    assert torch.equal(restored(made), restored(average.module))


def averaged_by_hand(state, other, decay=0.99):
    """Averages every floating-point entry in place, as many training scripts do."""
    for name, tensor in state.items():
        if tensor.dtype.is_floating_point:
            tensor.mul_(decay).add_(other[name].detach(), alpha=1 - decay)
    return state


def mean_of_files(state, other):
    """Averages two state dicts, as "model soups" do."""
    return OrderedDict((name, torch.stack([tensor, other[name]]).mean(0)) for name, tensor in state.items())


def cast(state, other):
    return {name: tensor.half() for name, tensor in state.items()}


def cast_to_bfloat16(state, other):
    return {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}


def sizes_and_copies(state, other):
    assert all(tensor.size() == other[name].size() for name, tensor in state.items())
    return {f"module.{name}": tensor.clone().cpu().contiguous() for name, tensor in state.items()}


@pytest.mark.parametrize(
    "handled",
    [averaged_by_hand, mean_of_files, cast, cast_to_bfloat16, sizes_and_copies],
    ids=lambda handled: handled.__name__,
)
def test_state_dict_changed_by_hand_is_rebuilt(handled, model, tmp_path):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    state = handled({name: t.clone() for name, t in model.state_dict().items()}, other.state_dict())
    made = rebuilt(state, tmp_path / "model.pth")
    assert exda.config_of(made) == CONFIG
    expected = {name.removeprefix("module."): tensor.float() for name, tensor in state.items()}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in made.named_parameters())


@torch.no_grad()
def test_functional_call_accepts_the_state_dict(model):
    other = trained(config=CONFIG, seed=5, **FEW_BLOCKS)
    assert torch.equal(functional_call(model, dict(other.state_dict()), image()), restored(other))
    assert exda.config_of(model) == CONFIG
    assert model.state_dict().keys() == other.state_dict().keys()


def test_safetensors_save_model_and_load_model_restore_the_network(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    other = trained(config=CONFIG, seed=5, **FEW_BLOCKS)
    load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(restored(other), restored(model))
    assert torch.equal(restored(exda.models.create(checkpoint=tmp_path / "model.safetensors")), restored(model))


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_distributed_checkpoint_restores_the_network(model, tmp_path):
    dcp.save(model.state_dict(), checkpoint_id=tmp_path / "dcp")
    other = trained(config=CONFIG, seed=5, **FEW_BLOCKS)
    state = other.state_dict()
    dcp.load(state, checkpoint_id=tmp_path / "dcp")
    other.load_state_dict(state)
    assert torch.equal(restored(other), restored(model))


def test_parameters_alone_load_with_strict_false(model):
    shadow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    other = trained(config=CONFIG, seed=5, **FEW_BLOCKS)
    found = other.load_state_dict(shadow, strict=False)
    assert torch.equal(restored(other), restored(model))
    assert all(name.endswith("_extra_state") for name in found.missing_keys)


def test_original_loads_strictly_with_one_warning_per_load():
    model, host = network(**FEW_BLOCKS), network(seed=5, **FEW_BLOCKS)
    exda.patch(model)
    ours = [parameter.detach().clone() for parameter in exda.new_parameters(model)]
    for assign in (False, True, False):
        with pytest.warns(UserWarning, match="holds nothing of what ExDA added") as warned:
            found = model.load_state_dict(host.state_dict(), strict=True, assign=assign)
        assert len(warned) == 1
        assert found.missing_keys == found.unexpected_keys == []
    torch.testing.assert_close(restored(model), restored(host), rtol=0, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(ours, exda.new_parameters(model), strict=True))
    assert all(parameter.requires_grad for parameter in exda.new_parameters(model))


def test_state_dict_of_a_partly_patched_network_leaves_the_rest(model):
    part = network(seed=5, **FEW_BLOCKS)
    exda.patch(part, CONFIG, include="latent")
    before = model.get_parameter("encoder_level1.0.attn.alpha").clone()
    with pytest.warns(UserWarning, match=r"encoder_level1\.0\.attn: the state dict holds nothing"):
        model.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(model.get_parameter("encoder_level1.0.attn.alpha"), before)
    assert torch.equal(model.get_parameter("latent.0.attn.alpha"), part.get_parameter("latent.0.attn.alpha"))


def test_given_state_dict_is_not_changed(model):
    host = network(seed=5, **FEW_BLOCKS).state_dict()
    keys = list(host)
    with pytest.warns(UserWarning, match="ExDA"):
        model.load_state_dict(host)
    assert list(host) == keys
