"""As many tokens as channels a head, in a network whose levels differ in that."""

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


def test_every_attention_has_its_own_number(model):
    configs = exda.configs_of(model)
    assert len(configs) == 8
    assert {name: config.tokens for name, config in configs.items()} == {
        name: 16 if name.startswith(("decoder_level1", "refinement")) else 8 for name in configs
    }
    for name, config in configs.items():
        module = model.get_submodule(name)
        assert module.token.phi.weight.shape[0] == module.dim == config.tokens * module.num_heads


def test_the_report_has_the_numbers():
    report = exda.plan(restormer(), CHANNELWISE)
    assert report.config == CHANNELWISE
    assert {match.config.tokens for match in report.matches} == {8, 16}
    assert all(match.config.tokens == match.dim // match.heads for match in report.matches)
    assert "with tokens=16: decoder_level1.0.attn, refinement.0.attn" in str(report)


def test_it_is_one_configuration(model):
    assert exda.config_of(model) == CHANNELWISE
    other = restormer()
    exda.patch(other, exda.config_of(model))
    assert exda.configs_of(other) == exda.configs_of(model)


def test_the_same_again_is_a_no_op(model):
    with unchanged(model):
        assert not exda.patch(model, CHANNELWISE).applied


def test_the_number_is_the_same_configuration_where_it_is_that(model):
    eight = exda.ExDAConfig(tokens=8, reinject="channelwise")
    with unchanged(model):
        assert not exda.patch(model, eight, include="encoder").applied
    other = restormer()
    with unchanged(other), pytest.raises(exda.ConfigError, match=r"decoder_level1.*tokens='channels'"):
        exda.patch(other, eight)
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError, match=r"decoder_level1\.0\.attn"):
        exda.patch(model, eight, include="decoder_level1")


def test_outputs_and_gradients_are_those_of_the_printed_formulas(model):
    model.double()
    train_new_parameters(model)
    x = image(dtype=torch.float64)
    found = {}
    for backend in ("torch", "reference"):
        with exda.backend(backend):
            output = model(x)
        found[backend] = output, *torch.autograd.grad(output.square().mean(), list(model.parameters()))
    for ours, printed in zip(found["torch"], found["reference"], strict=True):
        torch.testing.assert_close(ours, printed, rtol=1e-9, atol=1e-12)


def test_an_attention_by_itself():
    assert exda.from_host(MDTA(), CHANNELWISE).config.tokens == 4
    assert exda.ExDAAttention(8, 2, tokens="channels").config == exda.ExDAConfig(tokens=4, init="paper")
    repr_of_it = repr(exda.ExDAAttention(8, 2, tokens="channels", reinject="channelwise"))
    assert "tokens=4" in repr_of_it


def built_in():
    return exda.models.ExDA(dim=8, num_blocks=[1] * 4, num_refinement_blocks=1, config=CHANNELWISE)


def patched():
    model = restormer()
    exda.patch(model, CHANNELWISE)
    return model


def test_a_network_that_is_built_with_it():
    assert exda.config_of(built_in()) == CHANNELWISE


@pytest.mark.parametrize("make", [built_in, patched])
@torch.no_grad()
def test_from_nothing_but_its_checkpoint(make, tmp_path):
    model = make().eval()
    train_new_parameters(model)
    torch.save({"params": model.state_dict()}, tmp_path / "model.pth")
    again = exda.models.create(checkpoint=tmp_path / "model.pth")
    assert type(again) is type(model)
    assert exda.configs_of(again) == exda.configs_of(model)
    x = image()
    assert torch.equal(again(x), model(x))


@torch.no_grad()
def test_saved_and_loaded(tmp_path):
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
def test_a_checkpoint_that_does_not_say_it(into, tmp_path):
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
def test_no_other_word(tokens):
    with pytest.raises(exda.ConfigError, match=r"expected an integer of at least 0 or 'channels'"):
        exda.ExDAConfig(tokens=tokens)


def test_as_plain_data():
    assert exda.ExDAConfig(**CHANNELWISE.as_dict()) == CHANNELWISE
