"""A model without a known attention: an error that tells what came close."""

import pytest
from torch import nn

import exda_primitives as exda

from .friends import Buffer, ReLU
from .hosts import Cross
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


def test_plan_reports_instead():
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


def test_a_family_that_is_not_there():
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.NoMatchError):
        exda.patch(model, families="cross")


def test_only_the_families_asked_for():
    model = Net(Cross(), inputs=2)
    assert [match.family for match in exda.plan(model, families=["cross", "mdta"]).matches] == ["cross"]
    assert not exda.plan(model, families="mdta").matches


@pytest.mark.parametrize("call", [exda.unpatch, exda.config_of])
def test_nothing_to_take_out(call):
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.NotPatchedError, match="Net"):
        call(model)


def test_no_new_parameters():
    model = two_blocks()
    assert exda.new_parameters(model) == []
    assert not exda.is_patched(model)
