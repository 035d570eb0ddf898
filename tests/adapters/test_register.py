"""Families and backbones of one's own."""

import sys

import pytest
import torch

import exda_primitives as exda
from exda_primitives.patching.registry import known_backbones, known_families

from ..patching.hosts import MDTA
from ..patching.models import Net, image
from .process import run
from .toy import TOY_NET, ExDANegated, Negated, NegatedFamily


@torch.no_grad()
def test_a_family():
    model = Net(Negated(), MDTA()).eval()
    x = image()
    before = model(x)
    assert [match.family for match in exda.plan(model).matches] == ["mdta"]
    exda.register_adapter(NegatedFamily())
    report = exda.patch(model)
    assert [match.family for match in report.matches] == ["negated", "mdta"]
    assert not report.near_misses
    assert isinstance(model.blocks[0].attn, ExDANegated)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    exda.unpatch(model)
    assert torch.equal(model(x), before)


def test_a_family_by_its_name():
    exda.register_adapter(NegatedFamily())
    model = Net(Negated(), MDTA())
    assert [match.name for match in exda.plan(model, families="negated").matches] == ["blocks.0.attn"]


def test_a_family_that_breaks_its_promise():
    class Wrong(NegatedFamily):
        name = "wrong"

    exda.register_adapter(Wrong())
    with pytest.raises(exda.NoMatchError, match=r"blocks\.0\.attn \(MDTA\) is not wrong: its output differs"):
        exda.patch(Net(MDTA()), families="wrong")


def test_a_mismatch_is_a_near_miss_and_the_closest_is_told():
    class Far(NegatedFamily):
        name = "far"

        def candidates(self, module):
            if isinstance(module, Net):
                raise exda.Mismatch("far away", 1)
            return []

    class Close(Far):
        name = "close"

        def candidates(self, module):
            if isinstance(module, Net):
                raise exda.Mismatch("nearly", 2)
            return []

    exda.register_adapter(Close())
    exda.register_adapter(Far())
    (near_miss,) = exda.plan(Net()).near_misses
    assert (near_miss.family, near_miss.reason) == ("close", "nearly")


def test_a_backbone():
    model = Net(MDTA(), MDTA(), MDTA())
    assert exda.plan(model).multiple_of is None
    exda.register_adapter(TOY_NET)
    report = exda.plan(model)
    assert report.multiple_of == 4
    assert [(match.backbone, match.stage, match.downscale) for match in report.matches] == [
        ("toy_net", "first", 1),
        ("toy_net", "rest", 2),
        ("toy_net", "rest", 2),
    ]
    assert report.extra_macs(8, 8) > 0


def test_a_stage_of_ones_own_is_a_pattern():
    exda.register_adapter(TOY_NET)
    model = Net(MDTA(), MDTA(), MDTA())
    assert [match.name for match in exda.plan(model, include="rest").matches] == ["blocks.1.attn", "blocks.2.attn"]


NOT_ADAPTERS = {
    "class": (NegatedFamily, "register an instance, not the class"),
    "string": ("mdta", "got 'mdta'"),
    "none": (None, "got None"),
    "module": (MDTA(), "expected an instance of Family, a Backbone or an Architecture"),
    "tuple": ((NegatedFamily(), TOY_NET), "expected an instance of Family, a Backbone or an Architecture"),
}


@pytest.mark.parametrize("given", NOT_ADAPTERS)
def test_not_an_adapter(given):
    adapter, message = NOT_ADAPTERS[given]
    before = dict(known_families()), dict(known_backbones())
    with pytest.raises(exda.RegistrationError, match=message):
        exda.register_adapter(adapter)
    assert (known_families(), known_backbones()) == before


@pytest.mark.parametrize("missing", ["name", "replacement"])
def test_a_family_without_what_it_needs(missing):
    class Incomplete(exda.Family):
        if missing != "name":
            name = "incomplete"
        if missing != "replacement":
            replacement = ExDANegated

        def candidates(self, module):
            return []

    with pytest.raises(exda.RegistrationError, match=missing):
        exda.register_adapter(Incomplete())


def test_a_family_name_that_is_taken():
    class Impostor(NegatedFamily):
        name = "mdta"

    holder = known_families()["mdta"]
    with pytest.raises(exda.RegistrationError, match="'mdta' is taken"):
        exda.register_adapter(Impostor())
    assert known_families()["mdta"] is holder


FIRST_OF_ALL = """
import exda_primitives as exda

class Impostor(exda.Family):
    name = "mdta"
    replacement = exda.ExDAAttention

    def candidates(self, module):
        return []

try:
    exda.register_adapter(Impostor())
except exda.RegistrationError as error:
    print(error)
print(len(exda.plan(exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1])).matches))
"""


def test_a_name_that_is_taken_is_refused_before_anything_was_looked_up():
    refusal, matches = run(sys.executable, "-c", FIRST_OF_ALL).splitlines()
    assert "'mdta' is taken" in refusal
    assert matches == "11"


def test_a_backbone_name_that_is_taken():
    holder = known_backbones()["restormer"]
    with pytest.raises(exda.RegistrationError, match="'restormer' is taken"):
        exda.register_adapter(exda.Backbone("restormer", frozenset({"head"}), (), 1))
    assert known_backbones()["restormer"] is holder


def test_the_very_same_adapter_twice_is_fine():
    family = NegatedFamily()
    exda.register_adapter(family)
    exda.register_adapter(family)
    exda.register_adapter(TOY_NET)
    exda.register_adapter(TOY_NET)
    assert list(known_families()).count("negated") == 1
    assert list(known_backbones()).count("toy_net") == 1
