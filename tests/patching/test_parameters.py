"""Patching keeps the host's parameters as they are and adds new ones."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Renamed, frozen_temperature
from .lookalikes import ReLU
from .models import Net, image, restormer, two_blocks
from .unchanged import unchanged

NEW = {"value", "token", "alpha", "token_gate"}


def is_new(key):
    return not NEW.isdisjoint(key.split(".")) or key.endswith("._extra_state")


def test_patch_keeps_parameters_and_keys_and_adds_only_new_keys():
    model = Net(MDTA(bias=True), Renamed())
    before, state = dict(model.named_parameters()), model.state_dict()
    exda.patch(model)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert model.state_dict().keys() - state.keys() == {key for key in model.state_dict() if is_new(key)}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_report_lists_exactly_the_new_keys():
    model = two_blocks()
    before = set(model.state_dict())
    report = exda.patch(model)
    added = set(model.state_dict()) - before
    assert added == {*report.new_parameters, *(f"{match.name}._extra_state" for match in report.matches)}
    ours = {id(parameter) for parameter in exda.new_parameters(model)}
    assert ours == {id(model.get_parameter(key)) for key in report.new_parameters}


def test_original_state_dict_loads_with_only_new_keys_missing():
    original = restormer().state_dict()
    model = restormer()
    report = exda.patch(model)
    before = {name: model.get_parameter(name).clone() for name in report.new_parameters}
    with pytest.warns(UserWarning, match="ExDA"):
        model.load_state_dict(original, strict=True)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in original.items())


def test_patched_state_dict_loads_strictly():
    source, target = two_blocks(), two_blocks()
    exda.patch(source, exda.ExDAConfig(init="paper"))
    exda.patch(target, exda.ExDAConfig(init="paper"))
    target.load_state_dict(source.state_dict())
    x = image()
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@torch.no_grad()
def test_patch_keeps_the_dtype(dtype):
    model = two_blocks().to(dtype)
    x = image(dtype=dtype)
    before = model(x)
    exda.patch(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    after = model(x)
    assert after.dtype == dtype
    # In half precision, host and replacement round intermediate results at different places.
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 if dtype == torch.float64 else 3e-2)


def test_each_attention_keeps_its_own_dtype():
    model = two_blocks()
    model.blocks[1].double()
    exda.patch(model)
    for block, dtype in zip(model.blocks, (torch.float32, torch.float64), strict=True):
        assert {parameter.dtype for parameter in block.attn.parameters()} == {dtype}


class TestMeta:
    """A model on the meta device, without weights."""

    def test_patch_works_and_notes_that_nothing_was_verified(self):
        with torch.device("meta"):
            model = two_blocks()
        report = exda.patch(model)
        assert len(report.matches) == 2
        assert any("not verified" in note for note in report.notes)
        assert all(parameter.is_meta for parameter in model.parameters())

    def test_no_such_note_without_verification_or_with_weights(self):
        with torch.device("meta"):
            model = two_blocks()
        assert not exda.patch(model, verify=False).notes
        assert not exda.patch(two_blocks()).notes

    def test_lookalikes_are_refused(self):
        with torch.device("meta"):
            model = Net(ReLU())
        with unchanged(model), pytest.raises(exda.NoMatchError, match="output differs"):
            exda.patch(model)

    @torch.no_grad()
    def test_weights_loaded_afterwards_give_the_hosts_output(self):
        source = two_blocks().eval()
        with torch.device("meta"):
            model = two_blocks().eval()
        exda.patch(model)
        model.to_empty(device="cpu")
        for parameter in exda.new_parameters(model):
            nn.init.zeros_(parameter)
        model.load_state_dict(source.state_dict(), strict=False)
        x = image()
        torch.testing.assert_close(model(x), source(x), rtol=0, atol=1e-5)


def test_patch_keeps_requires_grad():
    model = Net(frozen_temperature(), MDTA())
    model.blocks[1].attn.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    exda.patch(model)
    assert all(model.get_parameter(name).requires_grad is flag for name, flag in before.items())
    assert all(parameter.requires_grad for parameter in exda.new_parameters(model))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_patch_keeps_the_training_mode(training):
    model = two_blocks().train(training)
    exda.patch(model)
    assert {module.training for module in model.modules()} == {training}


def test_patch_keeps_the_training_mode_of_each_part():
    model = two_blocks().train()
    model.blocks[0].attn.eval()
    model.blocks[1].attn.qkv.eval()
    exda.patch(model)
    first, second = (block.attn for block in model.blocks)
    assert {module.training for module in first.modules()} == {False}
    assert second.training
    assert second.value.training
    assert not second.qkv.training


def test_host_is_no_longer_part_of_the_model():
    model = two_blocks()
    hosts = [block.attn for block in model.blocks]
    exda.patch(model)
    assert not {id(module) for module in model.modules()} & {id(host) for host in hosts}
    assert not any("host" in key for key in model.state_dict())
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len({id(parameter) for parameter in model.parameters()})


def test_replacement_has_the_attributes_of_the_host():
    model = two_blocks()
    model.blocks[0].attn.note = note = object()
    exda.patch(model)
    assert model.blocks[0].attn.note is note
    assert model.blocks[0].attn.num_heads == 2


@pytest.mark.parametrize("name", ["config", "dim", "num_heads", "full_name"])
def test_host_attribute_with_a_reserved_name_is_kept_or_the_host_refused(name):
    model = two_blocks()
    theirs = model.blocks[0].attn
    setattr(theirs, name, 17)
    exda.plan(model)
    exda.patch(model)
    # Either the host is refused and stays, or the replacement has its attribute.
    assert model.blocks[0].attn is theirs or getattr(model.blocks[0].attn, name) == 17


def test_config_of_returns_the_configuration():
    model = two_blocks()
    config = exda.ExDAConfig(tokens=2, scale="mean")
    exda.patch(model, config)
    assert exda.config_of(model) == config
    assert exda.is_patched(model)


def test_configuration_without_primitives_adds_no_parameters():
    model = two_blocks()
    before = set(model.state_dict())
    report = exda.patch(model, exda.ExDAConfig(tokens=0, value="none"))
    assert report.extra_parameters == 0
    assert exda.new_parameters(model) == []
    assert set(model.state_dict()) - before == {f"{match.name}._extra_state" for match in report.matches}
    assert exda.is_patched(model)


def test_tied_parameters_of_two_attentions_stay_tied():
    model = two_blocks()
    first, second = (block.attn for block in model.blocks)
    second.qkv.weight = first.qkv.weight
    second.temperature = first.temperature
    exda.patch(model)
    assert model.blocks[1].attn.temperature is model.blocks[0].attn.temperature
    assert model.blocks[1].attn.qkv.weight is model.blocks[0].attn.qkv.weight
    exda.unpatch(model)
    assert second.temperature is first.temperature
