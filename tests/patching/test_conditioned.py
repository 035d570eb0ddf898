"""MDTA with a second argument: a prior that scales and shifts the input, a mask."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import OneLayerForBoth
from .lookalikes import Plain

CONFIGS = {
    "default": exda.ExDAConfig(init="paper"),
    "tokens": exda.ExDAConfig(tokens=2, value="none", scale="mean", init="paper"),
    "after": exda.ExDAConfig(tokens=0, value_position="after", init="paper"),
}


class ScaleAlone(Plain):
    def __init__(self):
        super().__init__()
        self.condition = nn.Linear(5, 8)

    def forward(self, x, vector):
        return super().forward(x + x * self.condition(vector)[:, :, None, None])


class TwoLayers(Plain):
    """The shift is registered before the scale, and the vector is optional."""

    def __init__(self):
        super().__init__()
        self.shift, self.scale = nn.Linear(5, 8), nn.Linear(5, 8)

    def forward(self, x, prior=None):
        if prior is not None:
            x = x * self.scale(prior)[..., None, None] + self.shift(prior)[..., None, None]
        return super().forward(x)


class NeverGiven(Plain):
    """The same forward without layers for a vector, as at levels that never get one."""

    def forward(self, x, prior=None):
        return super().forward(x) if prior is None else super().forward(x * self.scale(prior)[..., None, None])


class Masked(Plain):
    """A mask, one entry for several pixels, multiplies q, k and v."""

    mask = None

    def forward(self, x, mask):
        rows, columns = x.shape[2] // mask.shape[2], x.shape[3] // mask.shape[3]
        self.mask = mask.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
        found = super().forward(x)
        del self.mask
        return found

    def mix(self, q, k, v):
        return super().mix(q * self.mask, k * self.mask, v * self.mask)


def vector():
    return torch.randn(2, 5, dtype=torch.float64, requires_grad=True)


def mask():
    return torch.rand(2, 1, 4, 3, dtype=torch.float64).round()


HOSTS = {
    "one layer for both": (OneLayerForBoth, "prior", vector),
    "scale alone": (ScaleAlone, "prior", vector),
    "two layers": (TwoLayers, "prior", vector),
    "two layers, not given": (TwoLayers, "prior", lambda: None),
    "never given": (NeverGiven, "prior", lambda: None),
    "mask": (Masked, "masked", mask),
}


@pytest.fixture(params=HOSTS)
def host(request):
    torch.manual_seed(0)
    make, family, extra = HOSTS[request.param]
    x = torch.randn(2, 8, 8, 6, dtype=torch.float64, requires_grad=True)
    return nn.ModuleDict({"attention": make()}).double(), family, (x, extra())


def test_patch_preserves_the_output_and_unpatch_restores_the_host(host):
    model, family, inputs = host
    original, expected = model["attention"], model["attention"](*inputs)
    report = exda.patch(model)
    assert [(match.family, match.dim, match.heads) for match in report.matches] == [(family, 8, 2)]
    torch.testing.assert_close(model["attention"](*inputs), expected, rtol=1e-12, atol=1e-12)
    assert set(original.state_dict()) < set(model["attention"].state_dict())
    exda.unpatch(model)
    assert model["attention"] is original


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outputs_and_gradients_equal_the_reference_backends(host, config):
    model, _, inputs = host
    exda.patch(model, config)
    leaves = [leaf for leaf in (*inputs, *model.parameters()) if leaf is not None and leaf.requires_grad]

    def found(backend):
        with exda.backend(backend):
            output = model["attention"](*inputs)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        return [output, *torch.autograd.grad((output * weights).sum(), leaves, allow_unused=True)]

    for ours, theirs in zip(found("torch"), found("reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


class ShiftThenScale(TwoLayers):
    def forward(self, x, prior=None):
        return super().forward(x if prior is None else x + self.shift(prior)[..., None, None], prior)


class OtherWithoutVector(TwoLayers):
    """Computes another function when no vector is given."""

    def forward(self, x, prior=None):
        return super().forward(2 * x if prior is None else x, prior)


class ThreeChannels(OneLayerForBoth):
    def __init__(self):
        super().__init__()
        self.condition = nn.Linear(5, 24)


class MaskedInput(Plain):
    """The mask multiplies the input instead of q, k and v."""

    def forward(self, x, mask):
        rows, columns = x.shape[2] // mask.shape[2], x.shape[3] // mask.shape[3]
        return super().forward(x * mask.repeat_interleave(rows, 2).repeat_interleave(columns, 3))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (ShiftThenScale, "differs"),
        (OtherWithoutVector, "differs"),
        (ThreeChannels, r"P -> 16 or P -> 8, or two of the latter, found condition 5 -> 24"),
        (MaskedInput, r"forward takes \(x, mask\)"),
    ],
)
def test_lookalikes_are_refused_with_a_reason(make, reason):
    with pytest.raises(exda.NoMatchError, match=reason):
        exda.patch(nn.ModuleDict({"attention": make()}))


@pytest.mark.parametrize(
    ("make", "extra", "message"),
    [
        (NeverGiven, torch.ones(2, 5), "no layer for one; expected None"),
        (TwoLayers, torch.ones(5), r"expected a prior \(B, P\) for B = 2 maps, got \(5,\)"),
        (Masked, torch.ones(2, 1, 3, 3), r"got \(2, 1, 3, 3\)"),
        (Masked, torch.ones(2, 8, 6), r"expected a mask \(B, 1, H/m, W/n\)"),
    ],
)
def test_bad_input_is_refused(make, extra, message):
    attention = exda.from_host(make())
    with pytest.raises(exda.InputError, match=message):
        attention(torch.randn(2, 8, 8, 6), extra)
