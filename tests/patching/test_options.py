"""Options as keyword arguments, alone or on top of a configuration."""

import typing
from dataclasses import fields

import pytest

import exda_primitives as exda

from .hosts import MDTA
from .models import two_blocks
from .unchanged import unchanged


def patch(model, *config, **options):
    exda.patch(model, *config, **options)
    return exda.config_of(model)


def plan(model, *config, **options):
    return exda.plan(model, *config, **options).config


def patched(model, *config, **options):
    with exda.patched(model, *config, **options):
        return exda.config_of(model)


def from_host(model, *config, **options):
    return exda.from_host(model.blocks[0].attn, *config, **options).config


CALLS = pytest.mark.parametrize("call", [patch, plan, patched, from_host], ids=lambda call: call.__name__)


@CALLS
def test_keywords_make_the_configuration(call):
    assert call(two_blocks(), tokens=2, value="none") == exda.ExDAConfig(tokens=2, value="none")


@CALLS
def test_keywords_override_a_configuration(call):
    given = exda.ExDAConfig(tokens=2, scale="mean")
    assert call(two_blocks(), given, tokens=3) == exda.ExDAConfig(tokens=3, scale="mean")
    assert given.tokens == 2


@CALLS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokns": 2}, "tokns=2.*Did you mean 'tokens'.*options are tokens, stride, .*, init"),
        ({"familys": "mdta"}, "familys='mdta'.*Did you mean 'families'"),
        ({"colour": 1}, "colour=1.*options are tokens"),
        ({"value": "relu"}, "value='relu'.*'residual'"),
        ({"value": "gelu", "init": "identity"}, "value='gelu', init='identity'"),
    ],
    ids=["misspelt", "argument misspelt", "unknown", "no such value", "no such start"],
)
def test_unknown_options_and_values_are_refused(call, options, message):
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.ConfigError, match=message):
        call(model, **options)


@CALLS
@pytest.mark.parametrize("config", [{"tokens": 2}, 2, exda.ExDAConfig], ids=["dict", "number", "class"])
def test_configuration_of_another_type_is_refused(call, config):
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.ConfigError, match=r"expected an ExDAConfig, got .*tokens=\.\.\."):
        call(model, config)


@CALLS
@pytest.mark.parametrize("value", ["replace", "gelu", "sigmoid"])
def test_values_without_an_identity_start_default_to_paper_init(call, value):
    assert call(two_blocks(), tokens=2, value=value) == exda.ExDAConfig(tokens=2, value=value, init="paper")


def test_report_notes_that_the_outputs_change():
    assert any("outputs change" in note for note in exda.patch(two_blocks(), value="replace").notes)
    assert not exda.patch(two_blocks()).notes


@pytest.mark.parametrize("value", ["residual", "none"])
def test_other_values_default_to_identity_init(value):
    assert exda.ExDAConfig(value=value).init == "identity"


def test_typed_keywords_equal_the_fields_of_the_configuration():
    hints = typing.get_type_hints(exda.ExDAConfig)
    assert typing.get_type_hints(exda.ExDAOptions) == {each.name: hints[each.name] for each in fields(exda.ExDAConfig)}
    for function in (exda.patch, exda.plan, exda.from_host):
        assert exda.ExDAOptions in typing.get_args(typing.get_type_hints(function)["options"])


def test_keywords_and_selection_combine():
    model = two_blocks()
    exda.patch(model, tokens=2, include="blocks.1", families="mdta", verify=False)
    assert exda.configs_of(model) == {"blocks.1.attn": exda.ExDAConfig(tokens=2)}


def test_from_host_refuses_an_exda_attention():
    with pytest.raises(exda.NoMatchError, match=r"has 1 ExDA attentions already.*\(the model itself\)"):
        exda.from_host(exda.from_host(MDTA()))


def test_from_host_names_the_attentions_inside():
    with pytest.raises(exda.NoMatchError, match=r"holds attentions, blocks\.\{0\.\.1\}\.attn"):
        exda.from_host(two_blocks())
