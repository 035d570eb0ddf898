"""Patching a model that is patched already."""

import pytest

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, restormer, two_blocks
from .unchanged import unchanged


def test_same_configuration_is_a_no_op_and_the_report_says_so():
    model = two_blocks()
    first = exda.patch(model, exda.ExDAConfig(tokens=2))
    with unchanged(model):
        again = exda.patch(model, exda.ExDAConfig(tokens=2))
    assert first.applied
    assert not again.applied
    assert not again.matches
    assert again.already_patched == ("blocks.0.attn", "blocks.1.attn")
    assert any("nothing to do" in note for note in again.notes)


@pytest.mark.parametrize(
    "other",
    [exda.ExDAConfig(tokens=2), exda.ExDAConfig(value="none"), exda.ExDAConfig(init="paper")],
    ids=["tokens", "value", "init"],
)
def test_another_configuration_is_an_error(other):
    model = two_blocks()
    exda.patch(model)
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError, match=r"blocks\.0\.attn.*exda\.unpatch"):
        exda.patch(model, other)


def test_another_configuration_is_accepted_after_unpatch():
    model = two_blocks()
    exda.patch(model)
    exda.unpatch(model)
    exda.patch(model, exda.ExDAConfig(tokens=2))
    assert exda.config_of(model).tokens == 2


def test_same_configuration_patches_more_attentions():
    model = restormer()
    exda.patch(model, include="encoder")
    encoder = model.encoder_level1[0].attn
    report = exda.patch(model, include="decoder")
    assert report.applied
    assert [match.stage for match in report.matches] == ["decoder"] * 3
    assert len(report.already_patched) == 3
    assert model.encoder_level1[0].attn is encoder
    assert not isinstance(model.latent[0].attn, exda.ExDAModule)


def test_patching_all_after_a_part_does_the_rest():
    model = restormer()
    exda.patch(model, include="encoder")
    assert len(exda.patch(model).matches) == 5
    assert len(exda.unpatch(model)) == 8


def test_patching_a_part_after_all_is_a_no_op():
    model = restormer()
    exda.patch(model)
    with unchanged(model):
        assert not exda.patch(model, include="decoder").applied


def test_pattern_that_selects_nothing_still_raises():
    model = restormer()
    exda.patch(model)
    with pytest.raises(exda.PatternError, match="bottleneck"):
        exda.patch(model, include="bottleneck")


def test_attention_put_in_later_is_patched():
    model = two_blocks()
    exda.patch(model)
    model.blocks[0].attn = MDTA()
    report = exda.patch(model)
    assert [match.name for match in report.matches] == ["blocks.0.attn"]


def test_plan_of_a_patched_model_has_no_matches():
    model = two_blocks()
    exda.patch(model)
    with unchanged(model):
        report = exda.plan(model)
    assert not report.matches
    assert len(report.already_patched) == 2


def test_attention_replaced_by_hand_counts_as_patched():
    model = Net(MDTA())
    model.blocks[0].attn = exda.from_host(model.blocks[0].attn)
    assert exda.is_patched(model)
    with unchanged(model):
        assert not exda.patch(model).applied
