"""User-defined families and backbones."""

import re
import sys

import pytest
import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.models.registry import known_architectures
from exda_primitives.patching.backbones import known_multiple
from exda_primitives.patching.registry import FAMILIES, known_backbones, known_families

from ..patching.hosts import MDTA
from ..patching.models import Net, image
from .process import run
from .toy import TOY_NET, ExDANegated, Negated, NegatedFamily


@torch.no_grad()
def test_registered_family_is_patched():
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


def test_registered_family_is_selected_by_name():
    exda.register_adapter(NegatedFamily())
    model = Net(Negated(), MDTA())
    assert [match.name for match in exda.plan(model, families="negated").matches] == ["blocks.0.attn"]


def test_family_whose_replacement_differs_does_not_match():
    class Wrong(NegatedFamily):
        name = "wrong"

    exda.register_adapter(Wrong())
    with pytest.raises(exda.NoMatchError, match=r"blocks\.0\.attn \(MDTA\) is not wrong: its output differs"):
        exda.patch(Net(MDTA()), families="wrong")


def test_closest_mismatch_is_reported_as_the_near_miss():
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


def test_registered_backbone_gives_stages_and_multiple():
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


def test_backbone_with_most_required_children_gives_the_multiple():
    larger = exda.Backbone("larger", frozenset({"head", "blocks", "tail", "blocks.0.attn"}), (), multiple_of=2)
    exda.register_adapter(TOY_NET)
    exda.register_adapter(larger)
    model = Net(MDTA())
    assert exda.plan(model).multiple_of == known_multiple(model) == 2


def test_registered_stage_is_a_pattern():
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
def test_anything_but_an_adapter_is_refused(given):
    adapter, message = NOT_ADAPTERS[given]
    before = dict(known_families()), dict(known_backbones())
    with pytest.raises(exda.RegistrationError, match=message):
        exda.register_adapter(adapter)
    assert (known_families(), known_backbones()) == before


@pytest.mark.parametrize("missing", ["name", "replacement"])
def test_incomplete_family_is_refused(missing):
    class Incomplete(exda.Family):
        if missing != "name":
            name = "incomplete"
        if missing != "replacement":
            replacement = ExDANegated

        def candidates(self, module):
            return []

    with pytest.raises(exda.RegistrationError, match=missing):
        exda.register_adapter(Incomplete())


def test_taken_family_name_is_refused():
    class Impostor(NegatedFamily):
        name = "mdta"

    holder = known_families()["mdta"]
    with pytest.raises(exda.RegistrationError, match="'mdta' is taken"):
        exda.register_adapter(Impostor())
    assert known_families()["mdta"] is holder


REGISTER_FIRST = """
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


def test_taken_name_is_refused_before_the_first_lookup():
    refusal, matches = run(sys.executable, "-c", REGISTER_FIRST).splitlines()
    assert "'mdta' is taken" in refusal
    assert matches == "11"


LOOK_UP_IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from exda_primitives.patching.registry import known_families

together = Barrier(4)

def ask(_):
    together.wait()
    return len(known_families())

with ThreadPoolExecutor(4) as pool:
    print(*pool.map(ask, range(4)))
"""


CHECK_OWN = """
from exda_primitives.models.registry import ARCHITECTURES, known_architectures
from exda_primitives.patching.registry import BACKBONES, FAMILIES

known = known_architectures()
assert known == ARCHITECTURES.own and len(known) > 6
assert FAMILIES.known == FAMILIES.own and len(FAMILIES.own) > 3
assert BACKBONES.known == BACKBONES.own and len(BACKBONES.own) > 8
"""


def test_registries_hold_only_our_own_adapters_at_first():
    run(sys.executable, "-c", CHECK_OWN)


def test_first_lookups_in_threads_find_every_family():
    assert run(sys.executable, "-c", LOOK_UP_IN_THREADS).split() == [str(len(FAMILIES.own))] * 4


def test_taken_backbone_name_is_refused():
    holder = known_backbones()["restormer"]
    with pytest.raises(exda.RegistrationError, match="'restormer' is taken"):
        exda.register_adapter(exda.Backbone("restormer", frozenset({"head"}), (), 1))
    assert known_backbones()["restormer"] is holder


def test_registering_the_same_adapter_twice_is_allowed():
    family = NegatedFamily()
    exda.register_adapter(family)
    exda.register_adapter(family)
    exda.register_adapter(TOY_NET)
    exda.register_adapter(TOY_NET)
    assert list(known_families()).count("negated") == 1
    assert list(known_backbones()).count("toy_net") == 1


CELL = """
class Again(NegatedFamily):
    name = "again"
    version = {version}

exda.register_adapter(Again())
exda.register_adapter(exda.Backbone("again", frozenset({{"head"}}), (exda.Stage("blocks", "all", 1),), 4))
exda.register_adapter(exda.Architecture("again", Again, lambda state: {{}}))
"""


def run_cell(version):
    """Makes every definition anew, as a notebook does when a cell is run again."""
    exec(CELL.format(version=version), {"__name__": "__main__", "exda": exda, "NegatedFamily": NegatedFamily})


def test_rerun_notebook_cell_replaces_its_adapters():
    run_cell(1)
    run_cell(2)
    assert known_families()["again"].version == 2
    assert known_architectures()["again"].build.version == 2
    assert list(known_families()).count("again") == 1


def test_another_adapter_of_the_name_needs_replace():
    run_cell(1)
    other = exda.Backbone("again", frozenset({"head", "tail"}), (), 8)
    with pytest.raises(exda.RegistrationError, match=r"'again' is taken by Backbone.*replace=True"):
        exda.register_adapter(other)
    exda.register_adapter(other, replace=True)
    assert known_backbones()["again"] is other


class Impostor(NegatedFamily):
    name = "mdta"


OURS = {
    "family": (known_families, Impostor()),
    "backbone": (known_backbones, exda.Backbone("restormer", frozenset({"head"}), (), 1)),
    "architecture": (known_architectures, exda.Architecture("restormer", Net, lambda state: {})),
}


@pytest.mark.parametrize("kind", OURS)
def test_own_adapters_are_replaced_with_replace_and_come_back(kind):
    known, adapter = OURS[kind]
    own, order = known()[adapter.name], list(known())
    with pytest.raises(
        exda.RegistrationError, match=rf"'{adapter.name}' is taken .*exda_primitives' own.*replace=True"
    ):
        exda.register_adapter(adapter)
    assert known()[adapter.name] is own
    exda.register_adapter(adapter, replace=True)
    assert known()[adapter.name] is adapter
    exda.unregister_adapter(adapter.name)
    assert known()[adapter.name] is own
    assert list(known()) == order


def test_unregistered_adapter_is_no_longer_used():
    model = Net(Negated())
    run_cell(1)
    assert [match.family for match in exda.plan(model).matches] == ["again"]
    exda.patch(model)
    exda.unregister_adapter("again")
    assert not any("again" in known() for known in (known_families, known_backbones, known_architectures))
    assert exda.is_patched(model)
    exda.unpatch(model)
    assert not exda.plan(model).matches


def test_own_and_unknown_adapters_cannot_be_unregistered():
    run_cell(1)
    with pytest.raises(exda.RegistrationError, match="'mdta' is exda_primitives' own"):
        exda.unregister_adapter("mdta")
    with pytest.raises(exda.RegistrationError, match=r"no adapter 'agian'; registered .* are again\."):
        exda.unregister_adapter("agian")
    assert known_families().keys() > {"mdta", "again"}


STAGES = {
    "as it should be": (("blocks.0", "blocks"), None),
    "misspelt": (("block.0", "blocks"), r"toy_net: its stage 'block\.0' fits no module of the model"),
    "a dot too many": (("blocks.0.", "blocks"), r"stage 'blocks\.0\.' fits no module"),
    "behind a wider one": (("blocks", "blocks.0"), r"stage 'blocks\.0' comes after one that takes all it fits"),
    "an empty one": (("blocks.0", "blocks.1", "blocks", "nothing"), None),
}


@pytest.mark.parametrize("prefixes", STAGES)
@pytest.mark.parametrize("inside", [False, True], ids=["the model", "a part"])
def test_stages_that_fit_no_module_are_noted(prefixes, inside):
    names, message = STAGES[prefixes]
    stages = tuple(exda.Stage(name, f"stage {i}", 1) for i, name in enumerate(names))
    exda.register_adapter(exda.Backbone("toy_net", TOY_NET.children, stages, 4))
    net = Net(MDTA(), MDTA(), MDTA())
    net.nothing = nn.Sequential()
    model = nn.ModuleDict({"net": net}) if inside else net
    notes = [note for note in exda.plan(model).notes if "stage" in note]
    if message is None:
        assert notes == []
    else:
        (note,) = notes
        assert re.search(message.replace("the model", "net") if inside else message, note)


@pytest.mark.parametrize("name", ["restormer", "promptir", "adair", "histoformer", "amir", "moceir"])
def test_own_backbones_have_no_notes(name):
    with torch.device("meta"):
        model = exda.models.create(name)
    # Without families nothing is probed: only names are compared.
    assert exda.plan(model, families=[]).notes == ()
