"""The helper ``unchanged``, on which the tests of atomicity rely, detects every kind of change."""

import copy

import pytest
import torch
from torch import nn

from .models import two_blocks
from .unchanged import unchanged


def equal_module(model):
    model.blocks[0].attn = copy.deepcopy(model.blocks[0].attn)


def equal_parameter(model):
    model.blocks[0].attn.temperature = nn.Parameter(model.blocks[0].attn.temperature.detach().clone())


def same_parameter_other_storage(model):
    model.tail.weight.data = model.tail.weight.data.clone()


def one_value(model):
    with torch.no_grad():
        model.tail.weight[0, 0, 0, 0] += 1


def hook(model):
    model.blocks[0].attn.register_forward_hook(print)


def mode(model):
    model.blocks[0].attn.qkv.eval()


def frozen(model):
    model.tail.weight.requires_grad_(False)


def attribute(model):
    model.blocks[0].attn.left_behind = True


def order(model):
    model.blocks[0]._modules["norm"] = model.blocks[0]._modules.pop("norm")


def random_number(model):
    torch.rand(1)


def gradient(model):
    model.tail.weight.grad = torch.zeros_like(model.tail.weight)


CHANGES = [
    equal_module,
    equal_parameter,
    same_parameter_other_storage,
    one_value,
    hook,
    mode,
    frozen,
    attribute,
    order,
    random_number,
    gradient,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_detects_the_change(change):
    model = two_blocks()
    with pytest.raises(AssertionError), unchanged(model):
        change(model)


def test_accepts_a_model_that_was_only_called():
    model = two_blocks()
    with unchanged(model):
        model(torch.zeros(1, 3, 8, 8))
