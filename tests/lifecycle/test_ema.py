"""Moving averages of a patched network average its new parameters too."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import exda_primitives as exda

from .networks import CLASSES, FEW_BLOCKS, image, trained

DECAY = 0.75


def averaged(model):
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))


def averaged_with_buffers(model):
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)


def timm(model):
    return ModelEmaV3(model, decay=DECAY)


def timm_one_by_one(model):
    return ModelEmaV3(model, decay=DECAY, foreach=False)


@pytest.fixture(params=[averaged, averaged_with_buffers, timm, timm_one_by_one], ids=lambda make: make.__name__)
def average(request):
    return request.param


@pytest.fixture(scope="module", params=CLASSES)
def made(request):
    """A patched network, which each test copies because patching takes longer."""
    return trained(request.param, **FEW_BLOCKS)


@pytest.fixture
def model(made):
    return copy.deepcopy(made)


@torch.no_grad()
def step(model):
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


@torch.no_grad()
def test_every_parameter_is_averaged(average, model):
    ema = average(model)
    # The first update of PyTorch's AveragedModel only copies.
    ema.update_parameters(model) if isinstance(ema, AveragedModel) else ema.update(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model)
    ema.update_parameters(model) if isinstance(ema, AveragedModel) else ema.update(model)
    for name, tensor in ema.module.state_dict().items():
        expected = DECAY * before[name] + (1 - DECAY) * model.state_dict()[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
    assert len(exda.new_parameters(ema)) == len(exda.new_parameters(model)) > 0


@torch.no_grad()
def test_average_is_an_independent_patched_network(average, model, tmp_path):
    ema = average(model).module
    x = image()
    expected = model(x)
    assert torch.equal(ema(x), expected)
    exda.save(ema, tmp_path / "average.safetensors")
    exda.unpatch(ema)
    assert exda.is_patched(model)
    assert torch.equal(model(x), expected)
    exda.load(ema, tmp_path / "average.safetensors")
    assert torch.equal(ema(x), expected)
