"""A model without a known attention: patch raises an error that lists the near misses."""

import pytest
from torch import nn

import exda_primitives as exda

from .hosts import Cross
from .lookalikes import Buffer, ReLU
from .models import Net, two_blocks
from .unchanged import unchanged


def test_patch_raises():
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    with unchanged(model), pytest.raises(exda.NoMatchError, match="Sequential: no attention of a known family"):
        exda.patch(model)


def test_patch_lists_every_near_miss():
    model = Net(ReLU(), Buffer())
    with pytest.raises(exda.NoMatchError) as caught:
        exda.patch(model)
    message = str(caught.value)
    assert "blocks.0.attn (ReLU) is not mdta: its output differs" in message
    assert "blocks.1.attn (Buffer) is not mdta: it holds buffers (mask)" in message


def test_plan_reports_near_misses_without_raising():
    model = Net(ReLU(), Buffer())
    with unchanged(model):
        report = exda.plan(model)
    assert not report.matches
    assert [miss.name for miss in report.near_misses] == ["blocks.0.attn", "blocks.1.attn"]


def test_patched_raises_before_the_block():
    entered = False
    with pytest.raises(exda.NoMatchError), exda.patched(nn.Linear(2, 2)):
        entered = True
    assert not entered


def test_family_without_a_match_raises():
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.NoMatchError):
        exda.patch(model, families="cross")


def test_families_restrict_the_matches():
    model = Net(Cross(), inputs=2)
    assert [match.family for match in exda.plan(model, families=["cross", "mdta"]).matches] == ["cross"]
    assert not exda.plan(model, families="mdta").matches


@pytest.mark.parametrize("call", [exda.unpatch, exda.config_of])
def test_model_that_is_not_patched_raises(call):
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.NotPatchedError, match="Net"):
        call(model)


def test_model_that_is_not_patched_has_no_new_parameters():
    model = two_blocks()
    assert exda.new_parameters(model) == []
    assert not exda.is_patched(model)
