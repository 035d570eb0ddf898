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


def test_a_network_that_is_built_with_it():
    model = exda.models.ExDA(dim=8, num_blocks=[1] * 4, num_refinement_blocks=1, config=CHANNELWISE)
    assert exda.config_of(model) == CHANNELWISE


@pytest.mark.parametrize("tokens", ["all", "", None], ids=repr)
def test_no_other_word(tokens):
    with pytest.raises(exda.ConfigError, match=r"expected an integer of at least 0 or 'channels'"):
        exda.ExDAConfig(tokens=tokens)


def test_as_plain_data():
    assert exda.ExDAConfig(**CHANNELWISE.as_dict()) == CHANNELWISE
