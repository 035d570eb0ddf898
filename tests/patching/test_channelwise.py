"""``tokens="channels"``: as many tokens as channels per head, in a network whose levels differ in that number."""

import pytest
import torch

import exda_primitives as exda

from .hosts import MDTA
from .models import image, restormer, train_new_parameters
from .unchanged import unchanged

CHANNELWISE = exda.ExDAConfig(tokens="channels", reinject="channelwise")


@pytest.fixture
def model():
    model = restormer()
    exda.patch(model, tokens="channels", reinject="channelwise")
    return model


def test_every_attention_has_its_own_number_of_tokens(model):
    configs = exda.configs_of(model)
    assert len(configs) == 8
    assert {name: config.tokens for name, config in configs.items()} == {
        name: 16 if name.startswith(("decoder_level1", "refinement")) else 8 for name in configs
    }
    for name, config in configs.items():
        module = model.get_submodule(name)
        assert module.token.phi.weight.shape[0] == module.dim == config.tokens * module.num_heads


def test_report_lists_the_numbers_of_tokens():
    report = exda.plan(restormer(), CHANNELWISE)
    assert report.config == CHANNELWISE
    assert {match.config.tokens for match in report.matches} == {8, 16}
    assert all(match.config.tokens == match.dim // match.heads for match in report.matches)
    assert "with tokens=16: decoder_level1.0.attn, refinement.0.attn" in str(report)


def test_config_of_returns_one_configuration(model):
    assert exda.config_of(model) == CHANNELWISE
    other = restormer()
    exda.patch(other, exda.config_of(model))
    assert exda.configs_of(other) == exda.configs_of(model)


def test_patching_again_is_a_no_op(model):
    with unchanged(model):
        assert not exda.patch(model, CHANNELWISE).applied


def test_integer_tokens_are_accepted_only_where_they_equal_the_channels(model):
    eight = exda.ExDAConfig(tokens=8, reinject="channelwise")
    with unchanged(model):
        assert not exda.patch(model, eight, include="encoder").applied
    other = restormer()
    with unchanged(other), pytest.raises(exda.ConfigError, match=r"decoder_level1.*tokens='channels'"):
        exda.patch(other, eight)
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError, match=r"decoder_level1\.0\.attn"):
        exda.patch(model, eight, include="decoder_level1")


def test_outputs_and_gradients_equal_the_reference_backends(model):
    model.double()
    train_new_parameters(model)
    x = image(dtype=torch.float64)
    found = {}
    for backend in ("torch", "reference"):
        with exda.backend(backend):
            output = model(x)
        found[backend] = output, *torch.autograd.grad(output.square().mean(), list(model.parameters()))
    for ours, reference in zip(found["torch"], found["reference"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-12)


def test_single_attention_has_the_number_in_its_configuration():
    assert exda.from_host(MDTA(), CHANNELWISE).config.tokens == 4
    assert exda.ExDAAttention(8, 2, tokens="channels").config == exda.ExDAConfig(tokens=4, init="paper")
    text = repr(exda.ExDAAttention(8, 2, tokens="channels", reinject="channelwise"))
    assert "tokens=4" in text


def built_in():
    return exda.models.ExDA(dim=8, num_blocks=[1] * 4, num_refinement_blocks=1, config=CHANNELWISE)


def patched():
    model = restormer()
    exda.patch(model, CHANNELWISE)
    return model


def test_built_in_network_returns_the_configuration():
    assert exda.config_of(built_in()) == CHANNELWISE


@pytest.mark.parametrize("make", [built_in, patched])
@torch.no_grad()
def test_create_rebuilds_the_model_from_its_checkpoint_alone(make, tmp_path):
    model = make().eval()
    train_new_parameters(model)
    torch.save({"params": model.state_dict()}, tmp_path / "model.pth")
    again = exda.models.create(checkpoint=tmp_path / "model.pth")
    assert type(again) is type(model)
    assert exda.configs_of(again) == exda.configs_of(model)
    x = image()
    assert torch.equal(again(x), model(x))


@torch.no_grad()
def test_load_restores_what_save_wrote(tmp_path):
    model = patched().eval()
    train_new_parameters(model)
    exda.save(model, tmp_path / "exda.safetensors")
    other = restormer().eval()
    exda.load(other, tmp_path / "exda.safetensors", any_host=True)
    assert exda.config_of(other) == CHANNELWISE
    new = zip(exda.new_parameters(other), exda.new_parameters(model), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in new)


@pytest.mark.parametrize("into", [patched, restormer])
@torch.no_grad()
def test_checkpoint_without_configuration_loads_with_a_given_one(into, tmp_path):
    model = patched().eval()
    train_new_parameters(model)
    state = {name: each for name, each in model.state_dict().items() if not name.endswith("_extra_state")}
    torch.save(state, tmp_path / "model.pth")
    other = into().eval()
    exda.load_checkpoint(tmp_path / "model.pth", into=other, config=CHANNELWISE)
    x = image()
    assert torch.equal(other(x), model(x))
    torch.save({name: each[:1] if "phi" in name else each for name, each in state.items()}, tmp_path / "wrong.pth")
    with unchanged(other), pytest.raises(exda.CheckpointError, match="does not fit its weights"):
        exda.load_checkpoint(tmp_path / "wrong.pth", into=other, config=CHANNELWISE)


@pytest.mark.parametrize("tokens", ["all", "", None], ids=repr)
def test_other_values_for_tokens_are_refused(tokens):
    with pytest.raises(exda.ConfigError, match=r"expected an integer of at least 0 or 'channels'"):
        exda.ExDAConfig(tokens=tokens)


def test_configuration_survives_as_dict():
    assert exda.ExDAConfig(**CHANNELWISE.as_dict()) == CHANNELWISE
