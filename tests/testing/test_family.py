"""The library's own families pass ``check_family``, and each check finds the fault it is made for."""

import pytest
import torch
from tests.patching.hosts import MDTA, Cross, Histogram, Renamed
from tests.patching.lookalikes import ReLU
from tests.patching.pointwise import Packed, SeparateLocal
from tests.patching.spectral import Guided, Spectral
from tests.patching.test_conditioned import Masked, TwoLayers
from tests.patching.tokens import XCA
from tests.patching.windows import Apart, Called, Square, Swin, SwinV2, Unbiased
from tests.registries import forget_afterwards

import exda_primitives as exda
from exda_primitives import ops
from exda_primitives.patching.registry import known_families
from exda_primitives.testing import FAMILY_CHECKS, check_family

OURS = {
    "mdta": MDTA,
    "cross": Cross,
    "histogram": Histogram,
    "xca": XCA,
    "smsa": Spectral,
    "smsa, rows of q, biased": lambda: Spectral(rows="q", biased=True),
    "igmsa": Guided,
    "prior": TwoLayers,
    "masked": Masked,
    "window": Swin,
    "window, no size": Square,
    "window, called with positions": Called,
    "window, q apart": Apart,
    "window, V2": SwinV2,
    "window, V2 without biases": Unbiased,
    "gsa": Packed,
    "gsa, one layer each": SeparateLocal,
}
# The export check takes seconds: one family for each operation.
EXPORTED = {"mdta", "cross", "xca", "smsa", "window"}
# Checks for further modules of the window family, whose first module passes all: these depend on the module.
CHECKS_OF_EACH_WINDOW = {"recognised", "identity", "oracle", "saving"}
CASES = [
    (name, check)
    for name in OURS
    for check in FAMILY_CHECKS
    if check in CHECKS_OF_EACH_WINDOW or not name.startswith("window,")
    if check != "export" or name in EXPORTED
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_own_families_pass(name, check):
    family = known_families()[name.partition(",")[0]]
    check_family(family, OURS[name], sorts=name == "histogram", only=[check])


class Sound(exda.ConvFamily):
    name = "faulty"
    replacement = exda.ExDAAttention
    layout = exda.ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})


class Identity(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(x) * (1.001 if self.token is not None else 1)


class Oracle(exda.ExDAAttention):
    computed = ops.Operation(ops.mdta.functions["reference"], lambda x, terms: 1.001 * ops.mdta(x, terms))

    def forward(self, x):
        # Wrong only once it is trained.
        compute = ops.mdta if self.token is None or not self.alpha.any() else self.computed
        return compute(x, self.terms())


class Gradients(exda.ExDAAttention):
    def forward(self, x):
        out = super().forward(x)
        # Wrong only with primitives: without, recognition would notice.
        return out if self.token is None else 2 * out - out.detach()


class Silent(exda.ExDAAttention):
    def token_terms(self):
        terms = super().token_terms()
        return terms and terms._replace(gate=terms.gate.detach() + 0 * terms.gate)


class Saving(exda.ExDAAttention):
    def init_attributes(self):
        self.drawn = float(torch.rand(()))

    def forward(self, x):
        return super().forward(x) * (1 if self.token is None else 1 + self.drawn * self.alpha.mean())


class Unpatch(exda.ExDAAttention):
    def forward(self, x):
        if self.host is not None:
            self.host.seen = True
        return super().forward(x)


class Keywords(exda.ExDAAttention):
    def arguments_in_order(self, arguments, keywords):
        return arguments, keywords


class Export(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) < 1e9 else x


class Half(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(x).to(torch.promote_types(x.dtype, torch.float32))


class HalfAutocast(exda.ExDAAttention):
    def forward(self, x):
        out = super().forward(x)
        # Wrong in one of several configurations, which is not the last.
        return out / 0 if torch.is_autocast_enabled("cpu") and self.value is None else out


# "check, variant": (faulty replacement, host, what the error says).
FAULTS = {
    "identity": (Identity, MDTA, "VerificationError"),
    "oracle": (Oracle, MDTA, "ExDAConfig.* of torch.float64"),
    "gradients": (Gradients, MDTA, "slope .* by differences"),
    "gradients, silent": (Silent, MDTA, "no gradient reaches attention.token_gate"),
    "saving": (Saving, MDTA, "the state dict"),
    "unpatch": (Unpatch, MDTA, "attributes are left"),
    "keywords": (Keywords, Renamed, "feature"),
    "export": (Export, MDTA, "data-dependent"),
    "half": (Half, MDTA, "float32, ExDAConfig.* in torch.bfloat16"),
    "half, autocast": (HalfAutocast, MDTA, "not finite under autocast, ExDAConfig.*value='none'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_its_fault(fault):
    replacement, make, message = FAULTS[fault]
    check = fault.partition(",")[0]

    class Faulty(Sound):
        pass

    Faulty.replacement = replacement
    with pytest.raises(AssertionError, match=rf"'faulty' fails the check '{check}': [\s\S]*{message}"):
        check_family(Faulty(), make, only=[check])
    check_family(Sound(), make, only=[check])
    assert "faulty" not in known_families()


def test_module_of_another_family_fails():
    with pytest.raises(AssertionError, match=r"fails the check 'recognised': .*not recognised: attention \(ReLU\)"):
        check_family(Sound(), ReLU)


def test_layout_that_is_not_undone_fails(monkeypatch):
    forget_afterwards(monkeypatch)
    family = Sound()
    exda.register_adapter(family)
    monkeypatch.setattr(Sound, "to_map", lambda self, x, size=None: x.flip(1))
    with pytest.raises(AssertionError, match=r"'layout': .*to_map\(make_inputs\(maps\)\)"):
        check_family(family, MDTA, only=["layout"])
    assert "faulty" in known_families()


def test_checks_keep_registered_families(monkeypatch):
    forget_afterwards(monkeypatch)
    family = Sound()
    exda.register_adapter(family)
    check_family(Sound(), MDTA, only=["keywords"])
    assert known_families()["faulty"] is family


def test_unknown_check_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="no check 'identiy'; known are recognised, layout, identity"):
        check_family(Sound(), MDTA, only=["identiy"])
