"""Networks written with ExDA attentions: patch, plan and configuration queries report them as built in."""

import pytest
import torch

import exda_primitives as exda

from .hosts import MDTA
from .models import Net
from .unchanged import unchanged


@pytest.fixture(scope="module")
def tiny():
    with torch.device("meta"):
        return exda.models.create("exda-tiny")


def built_in_and_host(**options):
    return Net(exda.ExDAAttention(8, 2, **options), MDTA())


def test_patch_raises_and_names_them(tiny):
    with pytest.raises(exda.NoMatchError, match="has 28 ExDA attentions already, built in") as caught:
        exda.patch(tiny)
    assert r"encoder_level1.{0..1}.attn" in str(caught.value)
    assert "no attention" not in str(caught.value)


def test_plan_reports_them(tiny):
    report = exda.plan(tiny, include="decoder")
    assert len(report.built_in) == 28
    assert not report.already_patched
    assert not report.matches
    assert "built in: 28" in str(report)
    assert report.as_dict()["built_in"] == report.built_in


def test_configuration_is_reported(tiny):
    assert exda.config_of(tiny) == exda.ExDAConfig(init="paper")
    assert list(exda.configs_of(tiny))[:2] == ["encoder_level1.0.attn", "encoder_level1.1.attn"]
    assert not exda.is_patched(tiny)


def test_config_of_raises_for_several_configurations():
    model = Net(exda.ExDAAttention(8, 2), exda.ExDAAttention(8, 2, tokens=3))
    with pytest.raises(exda.MixedConfigError, match=r"tokens=1: blocks\.0\.attn\n  tokens=3: blocks\.1\.attn"):
        exda.config_of(model)


def test_patch_and_unpatch_leave_the_built_in_one():
    model = built_in_and_host(tokens=3)
    report = exda.patch(model, tokens=2)
    assert [match.name for match in report.matches] == ["blocks.1.attn"]
    assert report.built_in == ("blocks.0.attn",)
    assert [config.tokens for config in exda.configs_of(model).values()] == [3, 2]
    assert exda.config_of(model).tokens == 2
    assert exda.unpatch(model) == ("blocks.1.attn",)
    assert exda.config_of(model).tokens == 3


def test_selecting_only_built_in_ones_raises():
    model = built_in_and_host()
    with unchanged(model), pytest.raises(exda.NoMatchError, match="built in"):
        exda.patch(model, include="blocks.0")


def test_model_that_is_an_exda_attention_raises():
    with pytest.raises(exda.NoMatchError, match=r"has 1 ExDA attentions already, built in.*\(the model itself\)"):
        exda.patch(exda.ExDAAttention(8, 2))
