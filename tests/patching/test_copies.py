"""Copies of a patched model are patched models that are independent of it."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import exda_primitives as exda

from .hosts import Cross, Histogram, Renamed
from .models import Net, image, patched_and_trained, train_new_parameters, two_blocks

MODELS = {
    "mdta": two_blocks,
    "renamed": lambda: Net(Renamed()),
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
}


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.fixture(params=[copy.deepcopy, pickled, saved], ids=lambda way: way.__name__)
def copied(request):
    return request.param


@pytest.fixture(params=MODELS)
def model(request):
    return patched_and_trained(MODELS[request.param])


@torch.no_grad()
def test_copy_computes_the_same(copied, model):
    x = image()
    assert torch.equal(copied(model)(x), model(x))


def test_copy_is_patched_with_its_own_parameters(copied, model):
    clone = copied(model)
    assert exda.is_patched(clone)
    assert exda.config_of(clone) == exda.config_of(model)
    ours = {id(parameter) for parameter in exda.new_parameters(model)}
    assert len(exda.new_parameters(clone)) == len(ours)
    assert ours.isdisjoint(id(parameter) for parameter in exda.new_parameters(clone))


def test_copy_unpatches_to_its_own_host(copied, model):
    clone = copied(model)
    parameters = {name: clone.get_parameter(name) for name, _ in clone.named_parameters()}
    replacement = clone.blocks[0].attn
    exda.unpatch(clone)
    exda.unpatch(model)
    host, original = clone.blocks[0].attn, model.blocks[0].attn
    assert type(host) is type(original)
    assert host is not original
    assert all(parameters[name] is parameter for name, parameter in clone.named_parameters())
    assert {id(p) for p in host.parameters()} < {id(p) for p in replacement.parameters()}
    assert {id(p) for p in host.parameters()}.isdisjoint(id(p) for p in original.parameters())
    x = image()
    assert torch.equal(clone(x), model(x))


def test_unpatching_the_copy_leaves_the_original_patched(copied, model):
    x = image()
    before = model(x)
    exda.unpatch(copied(model))
    assert exda.is_patched(model)
    assert torch.equal(model(x), before)


def test_weights_changed_in_the_copy_reach_its_own_host(copied, model):
    clone = copied(model)
    with torch.no_grad():
        clone.blocks[0].attn.get_parameter("project_out.weight" if not _renamed(clone) else "proj.weight").fill_(3)
    exda.unpatch(clone)
    layer = clone.blocks[0].attn.proj if _renamed(clone) else clone.blocks[0].attn.project_out
    assert torch.equal(layer.weight, torch.full_like(layer.weight, 3))


def _renamed(model):
    return hasattr(model.blocks[0].attn, "proj")


def test_hooks_of_a_copy_are_shared_with_its_own_host():
    model = two_blocks()
    exda.patch(model)
    clone = copy.deepcopy(model)
    calls = []
    handle = clone.blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
    model(image())
    assert not calls
    exda.unpatch(clone)
    clone(image())
    assert len(calls) == 1
    handle.remove()
    clone(image())
    assert len(calls) == 1


@torch.no_grad()
def test_averaged_model_averages_new_parameters():
    model = two_blocks().eval()
    exda.patch(model)
    average = AveragedModel(model, avg_fn=lambda averaged, current, n: (averaged + current) / 2)
    average.update_parameters(model)
    gate = model.blocks[0].attn.token_gate.clone()
    train_new_parameters(model)
    average.update_parameters(model)
    expected = (gate + model.blocks[0].attn.token_gate) / 2
    torch.testing.assert_close(average.module.blocks[0].attn.token_gate, expected)
    assert set(exda.unpatch(average)) == {"module.blocks.0.attn", "module.blocks.1.attn"}


@torch.no_grad()
def test_model_inside_an_average_can_be_patched():
    average = AveragedModel(two_blocks().eval())
    x = image()
    before = average(x)
    assert [match.name for match in exda.patch(average).matches] == ["module.blocks.0.attn", "module.blocks.1.attn"]
    torch.testing.assert_close(average(x), before, rtol=0, atol=1e-5)
