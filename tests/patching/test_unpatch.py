"""unpatch puts back the original host modules with their current weights, and leaves nothing of ours."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Cross, Histogram, Renamed
from .models import Net, image, two_blocks
from .unchanged import unchanged


@pytest.mark.parametrize("make", [MDTA, Renamed, Cross, Histogram])
def test_patch_and_unpatch_leave_the_model_unchanged(make):
    model = Net(make(), inputs=2 if make is Cross else 1)
    with unchanged(model, random_numbers=False):
        exda.patch(model)
        exda.unpatch(model)


def test_returns_the_names_that_were_put_back():
    model = two_blocks()
    exda.patch(model, include="blocks.1")
    assert exda.unpatch(model) == ("blocks.1.attn",)
    assert not exda.is_patched(model)
    assert exda.new_parameters(model) == []


def test_unpatching_twice_raises():
    model = two_blocks()
    exda.patch(model)
    exda.unpatch(model)
    with unchanged(model), pytest.raises(exda.NotPatchedError):
        exda.unpatch(model)


@torch.no_grad()
def trained_in_place(model):
    for parameter in model.parameters():
        parameter.mul_(1.5)


def loaded_by_assignment(model):
    scaled = {key: 1.5 * value for key, value in model.named_parameters()}
    model.load_state_dict(model.state_dict() | scaled, assign=True)


def converted(model):
    model.double()


def converted_to_new_objects(model):
    previous = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(previous)


def layer_replaced(model):
    model.blocks[0].attn.project_out = nn.Conv2d(8, 8, 1, bias=False)


def parameter_replaced(model):
    model.blocks[0].attn.temperature = nn.Parameter(torch.full((2, 1, 1), 7.0))


CHANGES = [
    trained_in_place,
    loaded_by_assignment,
    converted,
    converted_to_new_objects,
    layer_replaced,
    parameter_replaced,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_weights_are_those_of_the_patched_model(change):
    model = two_blocks()
    hosts, keys = [block.attn for block in model.blocks], list(model.state_dict())
    exda.patch(model)
    change(model)
    patched = model.state_dict(keep_vars=True)
    exda.unpatch(model)
    assert [block.attn for block in model.blocks] == hosts
    restored = model.state_dict(keep_vars=True)
    assert set(restored) == set(keys)
    assert all(restored[key] is patched[key] for key in keys)
    x = image(dtype=next(model.parameters()).dtype)
    assert model(x).isfinite().all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_mode_is_that_of_the_patched_model(training):
    model = two_blocks().train(not training)
    exda.patch(model)
    model.train(training)
    exda.unpatch(model)
    assert {module.training for module in model.modules()} == {training}


def test_requires_grad_is_that_of_the_patched_model():
    model = two_blocks()
    exda.patch(model)
    model.requires_grad_(False)
    exda.unpatch(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_nothing_is_left_on_the_host():
    model = two_blocks()
    host = model.blocks[0].attn
    attributes, keys = set(vars(host)), list(model.state_dict())
    exda.patch(model)
    exda.unpatch(model)
    assert set(vars(host)) == attributes
    assert list(model.state_dict()) == keys


def test_repeated_patch_and_unpatch_preserve_the_output():
    model = two_blocks().eval()
    x = image()
    before = model(x)
    for _ in range(3):
        exda.patch(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
        exda.unpatch(model)
    assert torch.equal(model(x), before)


def test_optimizer_from_before_patching_still_updates_the_host():
    model = two_blocks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    exda.patch(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(image()).square().sum().backward()
    optimizer.step()
    exda.unpatch(model)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
