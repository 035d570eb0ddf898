"""Parameters that PyTorch stores under other names since patching: parametrised, pruned or weight-normalised."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, train_new_parameters


def parametrised(attention, name):
    parametrize.register_parametrization(attention, name, nn.Softplus())
    return [f"parametrizations.{name}.original"]


def pruned(attention, name):
    prune.l1_unstructured(attention, name, amount=1)
    return [f"{name}_orig"]


def weight_norm(attention, name):
    nn.utils.weight_norm(attention, name)
    return [f"{name}_g", f"{name}_v"]


WAYS = pytest.mark.parametrize("way", [parametrised, pruned, weight_norm], ids=lambda way: way.__name__)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Net(MDTA(), MDTA()).eval()
    exda.patch(model)
    train_new_parameters(model)
    return model


@WAYS
@pytest.mark.parametrize("name", ["alpha", "token_gate"])
def test_renamed_parameters_stay_new_parameters(model, way, name):
    attention = model.blocks[0].attn
    plain = {*attention.new_parameters()}
    names = way(attention, name)
    assert {*attention.new_parameters()} == plain - {name} | {*names}
    ours = exda.new_parameters(model)
    assert all(any(attention.get_parameter(each) is parameter for parameter in ours) for each in names)
    model(image()).sum().backward()
    assert all(attention.get_parameter(each).grad is not None for each in names)


@WAYS
def test_renamed_temperature_is_no_new_parameter(model, way):
    attention = model.blocks[0].attn
    plain = {*attention.new_parameters()}
    way(attention, "temperature")
    assert {*attention.new_parameters()} == plain


@WAYS
@torch.no_grad()
def test_unpatch_leaves_nothing_of_a_renamed_parameter(model, way):
    attention, x = model.blocks[0].attn, image()
    host = copy.deepcopy(attention._host[0])
    way(attention, "alpha")
    exda.unpatch(model)
    assert [*model.blocks[0].attn.state_dict()] == [*host.state_dict()]
    model(x)


def test_parametrised_temperature_is_a_near_miss():
    model = Net(MDTA())
    parametrize.register_parametrization(model.blocks[0].attn, "temperature", nn.Softplus())
    (near_miss,) = exda.plan(model).near_misses
    assert "temperature" in near_miss.reason
    assert "parametrised" in near_miss.reason
