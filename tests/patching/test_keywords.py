"""Networks that call their attention with keyword arguments."""

import copy
import pickle

import pytest
import torch
from tests.fusion.blocks import Block
from torch import fx, nn

import exda_primitives as exda

from .hosts import MDTA, Cross, Renamed
from .models import train_new_parameters
from .spectral import Guided
from .tokens import Renamed as RenamedTokens


class Exchanged(Cross):
    """Names its maps as the replacement does, but swapped."""

    def forward(self, y, x):
        return super().forward(y, x)


class Named(nn.Module):
    """Calls its attention with keyword arguments ``names``, the last one first."""

    def __init__(self, attention, names):
        super().__init__()
        self.attention, self.names = attention, names

    def forward(self, *inputs):
        return self.attention(**dict(zip(reversed(self.names), reversed(inputs), strict=True)))


CASES = {
    "own name": (MDTA, ["x"], (2, 8, 5, 7)),
    "mdta": (Renamed, ["feature"], (2, 8, 5, 7)),
    "cross": (Exchanged, ["y", "x"], (2, 8, 5, 7)),
    "igmsa": (Guided, ["x", "light"], (2, 5, 7, 6)),
    "xca": (RenamedTokens, ["tokens"], (2, 35, 8)),
}


@pytest.fixture(params=CASES)
def case(request):
    make, names, shape = CASES[request.param]
    torch.manual_seed(0)
    inputs = torch.randn(len(names), *shape).unbind()
    return Named(make(), names).eval(), inputs


# Without tokens and without convolutions on the value, no attention has to know the size of the map.
CONFIG = exda.ExDAConfig(tokens=0, value="gelu", init="paper")


@torch.no_grad()
def test_patch_preserves_the_output(case):
    model, inputs = case
    expected = model(*inputs)
    exda.patch(model, tokens=0, value="none")
    torch.testing.assert_close(model(*inputs), expected, rtol=0, atol=1e-5)
    exda.unpatch(model)
    assert torch.equal(model(*inputs), expected)


@pytest.mark.parametrize("again", [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_keyword_call_equals_positional_call(case, again):
    model, inputs = case
    exda.patch(model, CONFIG)
    model = again(model)
    assert torch.equal(model(*inputs), model.attention(*inputs))


@torch.no_grad()
def test_symbolic_trace_keeps_keyword_calls(case):
    model, inputs = case
    exda.patch(model, CONFIG)

    class Traced(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.names = model.attention, model.names

        def forward(self, x, y):
            return self.inner(**dict(zip(reversed(self.names), (y, x), strict=False)))

    x, y = inputs[0], inputs[-1]
    traced = Traced()
    assert torch.equal(fx.symbolic_trace(traced)(x, y), traced(x, y))


@torch.no_grad()
def test_keyword_call_compiles_as_one_graph(case):
    model, inputs = case
    exda.patch(model, CONFIG)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(*inputs), model(*inputs))


def test_missing_and_unknown_arguments_raise_type_error():
    model = nn.Sequential(Cross())
    exda.patch(model)
    x = torch.randn(1, 8, 4, 4)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        model[0](y=x)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        model[0](x, x, z=x)


def test_replacement_accepts_its_own_names_too():
    model = nn.Sequential(Renamed())
    exda.patch(model)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(model[0](x=x), model[0](feature=x))


@torch.no_grad()
def test_fused_block_accepts_keyword_arguments():
    class Named(Block):
        def forward(self, feature):
            return super().forward(feature)

    model, x = nn.Sequential(Named().eval()), torch.randn(1, 8, 8, 8)
    expected = model[0](feature=x)
    exda.fuse(model)
    torch.testing.assert_close(model[0](feature=x), expected, rtol=0, atol=1e-5)
    exda.patch(model)
    train_new_parameters(model)
    found = model[0](feature=x)
    exda.unfuse(model)
    torch.testing.assert_close(found, model[0](feature=x), rtol=0, atol=1e-5)


def test_subclass_may_call_super_with_keyword_arguments():
    class Negated(exda.ExDACrossAttention):
        def forward(self, x, y):
            return super().forward(x=-x, y=y)

    host, (x, y) = Exchanged(), torch.randn(2, 1, 8, 4, 4)
    parts = {name: name for name in Negated.PARTS}
    attention = Negated.adopt(host, parts, exda.ExDAConfig(tokens=0, value="none"))
    torch.testing.assert_close(attention(x=y, y=x), host(-x, y), rtol=0, atol=1e-5)


class Taken(MDTA):
    """Has an attribute with the name of one of the replacement's methods."""

    def __init__(self):
        super().__init__()
        self.part = 3


class TakenByLayer(MDTA):
    def __init__(self):
        super().__init__()
        self.terms = nn.Identity()


@pytest.mark.parametrize(("make", "name"), [(Taken, "part"), (TakenByLayer, "terms")])
def test_host_with_an_attribute_named_as_a_method_is_refused(make, name):
    with pytest.raises(exda.NoMatchError, match=rf"has an attribute '{name}', which is a method's name"):
        exda.patch(nn.Sequential(make()))
