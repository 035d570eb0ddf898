"""Several configurations in one model: each attention keeps its own, and every query reports them."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Cross
from .models import Net, image, restormer, train_new_parameters, two_blocks
from .unchanged import unchanged

TOKENS = exda.ExDAConfig(tokens=2, value="none")
VALUE = exda.ExDAConfig(tokens=0)
ENCODER = [f"encoder_level{level}.0.attn" for level in (1, 2, 3)]
DECODER = [f"decoder_level{level}.0.attn" for level in (3, 2, 1)]


def mixed():
    model = restormer()
    exda.patch(model, TOKENS, include="encoder")
    exda.patch(model, VALUE, include="decoder")
    return model


def test_configs_of_lists_the_configuration_of_each_attention():
    model = mixed()
    assert exda.configs_of(model) == dict.fromkeys(ENCODER, TOKENS) | dict.fromkeys(DECODER, VALUE)
    assert list(exda.configs_of(model)) == [*ENCODER, *DECODER]
    assert model.encoder_level1[0].attn.value is None
    assert model.decoder_level1[0].attn.token is None


@torch.no_grad()
def test_patch_preserves_the_output_and_unpatch_restores_the_host():
    model = restormer().eval()
    x = image()
    before = model(x)
    exda.patch(model, TOKENS, include="encoder")
    exda.patch(model, VALUE, include="decoder")
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    exda.unpatch(model)
    assert torch.equal(model(x), before)


def test_outputs_and_gradients_equal_the_reference_backends():
    model = mixed().double()
    train_new_parameters(model)
    x = image(dtype=torch.float64)
    found = {}
    for backend in ("torch", "reference"):
        with exda.backend(backend):
            output = model(x)
        found[backend] = output, *torch.autograd.grad(output.square().mean(), list(model.parameters()))
    for ours, reference in zip(found["torch"], found["reference"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-12)


def test_config_of_raises_and_lists_the_configurations():
    with pytest.raises(exda.MixedConfigError) as caught:
        exda.config_of(mixed())
    lines = str(caught.value).splitlines()
    assert "6 ExDA attentions have 2 configurations" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        f"tokens=2, value='none': {', '.join(ENCODER)}",
        f"tokens=0, value='residual': {', '.join(DECODER)}",
    ]
    assert isinstance(caught.value, exda.ConfigError)


def test_report_lists_the_attentions_of_each_configuration():
    model = restormer()
    exda.patch(model, TOKENS, include="encoder")
    report = exda.patch(model, VALUE, include="decoder")
    assert report.already_patched == tuple(ENCODER)
    assert report.configs == exda.configs_of(model)
    text = " ".join(str(report).split())
    assert "already patched: 3" in text
    assert f"with tokens=2, value='none': {', '.join(ENCODER)}" in text
    assert f"with tokens=0, value='residual': {', '.join(DECODER)}" in text
    data = json.loads(json.dumps(report.as_dict()))
    assert [(each["name"], each["config"]["tokens"], each["built_in"]) for each in data["present"]] == [
        (name, 2, False) for name in ENCODER
    ]
    assert data["already_patched"] == ENCODER


def test_report_of_one_configuration_lists_none():
    model = restormer()
    exda.patch(model, include="encoder")
    assert "with " not in str(exda.patch(model))


@pytest.mark.parametrize(
    ("include", "name"),
    [(None, ENCODER[0]), ("encoder", ENCODER[0]), (["decoder", "encoder_level2"], ENCODER[1])],
    ids=["all", "the same", "one of them"],
)
def test_patching_with_another_configuration_is_refused(include, name):
    model = restormer()
    exda.patch(model, TOKENS, include="encoder")
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError) as caught:
        exda.patch(model, VALUE, include=include)
    assert all(part in str(caught.value) for part in (f"{name}: ", str(TOKENS), str(VALUE), "exda.unpatch(model, inc"))


def test_plan_notes_that_patch_would_refuse():
    model = restormer()
    exda.patch(model, TOKENS, include="encoder")
    with unchanged(model):
        report = exda.plan(model, VALUE)
    assert any(ENCODER[0] in note and str(TOKENS) in note for note in report.notes)
    assert not exda.plan(model, VALUE, exclude="encoder").notes
    assert not exda.plan(model, TOKENS).notes


def test_families_select_attentions():
    model = nn.ModuleDict({"first": Net(MDTA()), "second": Net(Cross(), inputs=2)})
    exda.patch(model, TOKENS, families="mdta")
    report = exda.patch(model, VALUE, families="cross")
    assert [match.name for match in report.matches] == ["second.blocks.0.attn"]
    assert list(exda.configs_of(model).values()) == [TOKENS, VALUE]
    with unchanged(model), pytest.raises(exda.NoMatchError, match="2 ExDA attentions already, patched"):
        exda.patch(model, families="histogram")


def test_empty_selection_raises():
    model = restormer()
    exda.patch(model)
    with unchanged(model), pytest.raises(exda.NoMatchError, match="none of the 8 attentions"):
        exda.patch(model, include="encoder", exclude="encoder")


def test_patched_inside_a_partly_patched_model():
    model = restormer()
    exda.patch(model, TOKENS, include="encoder")
    with unchanged(model, random_numbers=False), exda.patched(model, VALUE, exclude="encoder"):
        assert len(exda.configs_of(model)) == 8
        assert exda.configs_of(model)["latent.0.attn"] == VALUE


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deep", "pickle"]
)
def test_copies_keep_each_configuration(copied):
    model = mixed()
    other = copied(model)
    assert exda.configs_of(other) == exda.configs_of(model)
    exda.patch(other, TOKENS, include="latent")
    assert len(exda.unpatch(other)) == 7
    assert len(exda.configs_of(model)) == 6


def test_configs_of_looks_inside_a_compiled_model():
    model = mixed()
    assert exda.configs_of(torch.compile(model, backend="eager")) == exda.configs_of(model)


def test_shared_module_is_listed_once():
    attention = MDTA()
    model = Net(attention, MDTA(), attention)
    exda.patch(model)
    assert list(exda.configs_of(model)) == ["blocks.0.attn", "blocks.1.attn"]
    assert exda.plan(model).already_patched == ("blocks.0.attn", "blocks.1.attn")


def test_configs_of_a_plain_model_is_empty():
    assert exda.configs_of(two_blocks()) == {}


class TestSelectiveUnpatch:
    """unpatch selects attentions by the same patterns as patch."""

    def test_stage_is_unpatched_and_patched_anew(self):
        model = mixed()
        assert exda.unpatch(model, include="encoder") == tuple(ENCODER)
        assert exda.configs_of(model) == dict.fromkeys(DECODER, VALUE)
        exda.patch(model, VALUE)
        assert exda.config_of(model) == VALUE

    def test_exclude_takes_precedence_over_include(self):
        model = mixed()
        assert exda.unpatch(model, include="encoder", exclude="encoder_level1") == tuple(ENCODER[1:])

    def test_shared_module_is_unpatched_under_all_its_names(self):
        attention = MDTA()
        model = Net(attention, MDTA(), attention)
        exda.patch(model)
        assert exda.unpatch(model, include="blocks.2") == ("blocks.0.attn", "blocks.2.attn")
        assert model.blocks[0].attn is model.blocks[2].attn is attention

    def test_selecting_what_is_not_patched_raises(self):
        model = mixed()
        with unchanged(model), pytest.raises(exda.PatternError, match=r"include='latent'.*patched attentions"):
            exda.unpatch(model, include="latent")
        with unchanged(model), pytest.raises(exda.NotPatchedError, match="none of the 6"):
            exda.unpatch(model, exclude="*")


NAMES = [f"blocks.{i}.attn" for i in range(3)]
SUBSETS = st.sets(st.sampled_from(NAMES), min_size=1).map(sorted)
STEPS = st.one_of(
    st.tuples(st.just("patch"), SUBSETS, st.sampled_from([TOKENS, VALUE])),
    st.tuples(st.just("unpatch"), SUBSETS, st.none()),
    st.tuples(st.just("copy"), st.just([]), st.none()),
)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=6))
def test_any_sequence_of_patch_unpatch_and_copy_preserves_the_output(steps):
    torch.manual_seed(0)
    model, held = Net(MDTA(), MDTA(), MDTA()).eval(), {}
    x = image(8, 8, 1)
    before = model(x)
    for action, names, config in steps:
        if action == "copy":
            model = copy.deepcopy(model)
        elif action == "unpatch":
            if set(names) <= set(held):
                assert list(exda.unpatch(model, include=names)) == names
                held = {name: kept for name, kept in held.items() if name not in names}
            else:
                with pytest.raises((exda.PatternError, exda.NotPatchedError)):
                    exda.unpatch(model, include=names)
        elif any(held.get(name, config) != config for name in names):
            with pytest.raises(exda.AlreadyPatchedError):
                exda.patch(model, config, include=names)
        else:
            report = exda.patch(model, config, include=names)
            assert report.already_patched == tuple(sorted(held))
            assert [match.name for match in report.matches] == [name for name in names if name not in held]
            held |= dict.fromkeys(names, config)
        assert exda.configs_of(model) == {name: held[name] for name in NAMES if name in held}
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
