"""A network built and patched on the meta device, then loaded, equals one that was built with weights."""

import copy

import pytest
import torch

import exda_primitives as exda

from .networks import CLASSES, FEW_BLOCKS, image, network, trained

CONFIG = exda.ExDAConfig(tokens=2, scale="mean")


@pytest.fixture(scope="module", params=CLASSES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def made(family):
    """A patched network, which each test copies because patching takes longer."""
    return trained(family, config=CONFIG, **FEW_BLOCKS)


@pytest.fixture
def source(made):
    return copy.deepcopy(made)


@pytest.fixture
def empty(family):
    with torch.device("meta"):
        model = network(family, **FEW_BLOCKS)
    exda.patch(model, CONFIG)
    assert all(parameter.is_meta for parameter in model.parameters())
    return model


def checkpoint(model, source, path):
    torch.save({"params": source.state_dict()}, path)
    exda.load_checkpoint(path, into=model)


def own_file(model, source, path):
    exda.save(source, path, whole=True)
    exda.load(model, path)


def assigned(model, source, path):
    torch.save(source.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)


def emptied(model, source, path):
    torch.save(source.state_dict(), path)
    model.to_empty(device="cpu")
    model.load_state_dict(torch.load(path, weights_only=True))


def two_files(model, source, path):
    """Loads the host's checkpoint, then a file of the new parameters."""
    host = source.state_dict()
    new = {*exda.plan(_unpatched(source), CONFIG).new_parameters}
    host = {name: each for name, each in host.items() if name not in new and not name.endswith("_extra_state")}
    torch.save({"params": host}, path)
    exda.load_checkpoint(path, into=model)
    assert all(parameter.is_meta for parameter in exda.new_parameters(model))
    exda.save(source, path.with_suffix(".safetensors"))
    exda.load(model, path.with_suffix(".safetensors"))


def _unpatched(source):
    family = next(name for name, kind in CLASSES.items() if type(source) is kind)
    return network(family, **FEW_BLOCKS)


@torch.no_grad()
@pytest.mark.parametrize("load", [checkpoint, own_file, assigned, emptied, two_files], ids=lambda load: load.__name__)
def test_loaded_network_computes_the_same(load, empty, source, tmp_path):
    load(empty, source, tmp_path / "weights.safetensors" if load is own_file else tmp_path / "weights.pth")
    assert torch.equal(empty(image()), source(image()))
    assert exda.config_of(empty) == CONFIG


@torch.no_grad()
def test_load_patches_an_unpatched_network_on_meta(family, source, tmp_path):
    exda.save(source, tmp_path / "whole.safetensors", whole=True)
    with torch.device("meta"):
        model = network(family, **FEW_BLOCKS)
    exda.load(model, tmp_path / "whole.safetensors")
    assert torch.equal(model(image()), source(image()))


@torch.no_grad()
def test_unpatch_keeps_the_loaded_weights(empty, source, tmp_path):
    checkpoint(empty, source, tmp_path / "weights.pth")
    exda.unpatch(empty)
    exda.unpatch(source)
    assert not any(parameter.is_meta for parameter in empty.parameters())
    assert torch.equal(empty(image()), source(image()))


def test_loaded_parameters_can_be_trained(empty, source, tmp_path):
    checkpoint(empty, source, tmp_path / "weights.pth")
    empty(image()).square().mean().backward()
    assert all(parameter.grad is not None for parameter in exda.new_parameters(empty))
