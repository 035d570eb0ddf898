"""Look-alikes are refused with their name and the cause, and stay unchanged."""

import re

import pytest
from torch import nn

import exda_primitives as exda

from .hosts import MDTA
from .lookalikes import LOOKALIKES, Plain
from .models import Net
from .unchanged import unchanged


@pytest.fixture(params=LOOKALIKES)
def lookalike(request):
    make, cause = LOOKALIKES[request.param]
    return make(), cause


def test_patch_refuses_a_lookalike_with_the_cause(lookalike):
    attention, cause = lookalike
    model = Net(attention)
    with unchanged(model), pytest.raises(exda.NoMatchError) as caught:
        exda.patch(model)
    kind = type(attention).__name__
    assert re.search(rf"blocks\.0\.attn \({kind}\) is not mdta: .*{cause}", str(caught.value))


def test_patch_leaves_a_lookalike_beside_a_host(lookalike):
    attention, cause = lookalike
    model = Net(attention, MDTA())
    with unchanged(attention, random_numbers=False):
        report = exda.patch(model)
        assert [match.name for match in report.matches] == ["blocks.1.attn"]
        assert [(miss.name, miss.family) for miss in report.near_misses] == [("blocks.0.attn", "mdta")]
        assert re.search(cause, report.near_misses[0].reason)
        assert model.blocks[0].attn is attention
        exda.unpatch(model)


def test_common_base_of_the_lookalikes_matches():
    assert len(exda.plan(Net(Plain())).matches) == 1


def test_instances_that_differ_in_a_flag_are_probed_separately():
    class Flagged(Plain):
        relu = False

        def weigh(self, logits):
            return logits.relu() if self.relu else logits.softmax(-1)

    model = Net(Flagged(), Flagged(), Flagged())
    model.blocks[1].attn.relu = True
    report = exda.plan(model)
    assert [match.name for match in report.matches] == ["blocks.0.attn", "blocks.2.attn"]
    assert [miss.name for miss in report.near_misses] == ["blocks.1.attn"]


def test_modules_without_attention_are_no_near_miss():
    assert not exda.plan(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 8))).near_misses


class TestBuiltIn:
    """An ExDA attention that its author wrote into the model."""

    def test_is_not_replaced(self):
        model = Net(exda.ExDAAttention(8, 2), MDTA())
        built_in = model.blocks[0].attn
        assert [match.name for match in exda.patch(model).matches] == ["blocks.1.attn"]
        assert model.blocks[0].attn is built_in

    def test_is_kept_by_unpatch(self):
        model = Net(exda.ExDAAttention(8, 2), MDTA())
        built_in = model.blocks[0].attn
        exda.patch(model)
        assert exda.unpatch(model) == ("blocks.1.attn",)
        assert model.blocks[0].attn is built_in

    def test_alone_raises_no_match(self):
        model = Net(exda.ExDAAttention(8, 2))
        with unchanged(model), pytest.raises(exda.NoMatchError):
            exda.patch(model)
        assert not exda.is_patched(model)

    def test_may_have_another_configuration_than_the_patch(self):
        model = Net(exda.ExDAAttention(8, 2, tokens=3), MDTA())
        exda.patch(model, exda.ExDAConfig(tokens=1))
        assert exda.config_of(model).tokens == 1

    def test_its_parameters_are_new_ones(self):
        model = Net(exda.ExDAAttention(8, 2))
        held = model.blocks[0].attn.new_parameters()
        assert {id(p) for p in exda.new_parameters(model)} == {id(p) for p in held.values()}
