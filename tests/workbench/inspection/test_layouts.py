"""Attentions of third-party families whose maps have the channels last, or no axis of channels."""

import pytest
import torch
from tests.patching.hosts import MDTA, OneLayerForBoth
from tests.patching.models import Net
from tests.patching.spectral import Guided, Spectral
from tests.registries import forget_afterwards
from torch import nn

import exda_primitives as exda
from exda_primitives.workbench.inspection import embeddings, radial_spectrum, spectra, token_maps
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.collect import collect
from exda_primitives.workbench.inspection.parts import compact_maps, has_value, value


class Last(MDTA):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ExDALast(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def linear_value(self, x):
        return super().linear_value(x.permute(0, 3, 1, 2))


class LastFamily(exda.ConvFamily):
    name = "last"
    replacement = ExDALast
    layout = exda.ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})

    def make_inputs(self, maps):
        return [x.permute(0, 2, 3, 1) for x in maps]

    def to_map(self, x, size=None):
        return super().to_map(x).permute(0, 3, 1, 2)


class Around(nn.Module):
    """Channels last inside, first outside."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    forget_afterwards(monkeypatch)


@pytest.fixture
def models():
    """The same network, its attention with the channels first and last."""
    exda.register_adapter(LastFamily())
    found = []
    for make in (MDTA, lambda: Around(Last())):
        torch.manual_seed(0)
        found.append(Net(make()).eval())
    return found


@pytest.mark.parametrize("patched", [False, True])
def test_features_are_those_of_the_channels(models, patched):
    images = torch.rand(2, 3, 16, 24)
    found = []
    for model in models:
        if patched:
            torch.manual_seed(1)
            exda.patch(model)
        for of in ("outputs", "tokens")[: 1 + patched]:
            (points,) = embeddings(model, images, of=of).values()
            found.append(points)
    half = len(found) // 2
    for first, last in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(first, last, rtol=0, atol=1e-5)
    assert found[0].shape == (2, 16)


@pytest.mark.parametrize("read", [compact_maps, value])
def test_parts_are_those_of_the_channels(models, read):
    found = []
    for model in models:
        torch.manual_seed(1)
        exda.patch(model)
        (rows,) = collect(
            model, torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)), attentions(model), read
        ).values()
        found += rows
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_a_layout_without_an_axis_of_channels():
    class Flat(LastFamily):
        name = "flat"

        def make_inputs(self, maps):
            return [x.permute(0, 2, 3, 1).flatten(2) for x in maps]

        def to_map(self, x, size=None):
            return x.unflatten(2, (-1, 8)).permute(0, 3, 1, 2)

    class ExDAFlat(exda.ExDAAttention):
        def forward(self, x):
            x = x.unflatten(2, (-1, 8)).permute(0, 3, 1, 2)
            return super().forward(x).permute(0, 2, 3, 1).flatten(2)

    class FlatAttention(MDTA):
        def forward(self, x):
            return super().forward(x.unflatten(2, (-1, 8)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(2)

    class Flattened(Around):
        def forward(self, x):
            y = self.attention(x.permute(0, 2, 3, 1).flatten(2))
            return y.unflatten(2, (-1, 8)).permute(0, 3, 1, 2)

    Flat.replacement = ExDAFlat
    exda.register_adapter(Flat())
    found = []
    for make in (MDTA, lambda: Flattened(FlatAttention())):
        torch.manual_seed(0)
        model = Net(make())
        found += embeddings(model, torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))).values()
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_a_family_without_the_inverse_of_its_layout_is_refused():
    class Silent(LastFamily):
        name = "silent"
        to_map = exda.Family.to_map

    with pytest.raises(exda.RegistrationError, match=r"Silent\.to_map\(x, \(H, W\)\) does not give back"):
        exda.register_adapter(Silent())


class Sequence(nn.Module):
    """Spectral attentions on maps with the channels first."""

    def __init__(self):
        super().__init__()
        self.smsa, self.igmsa = Spectral(dim=3, heads=1), Guided(dim=3, heads=1)

    def forward(self, x):
        x = x.movedim(1, -1)
        # Keywords in reverse order: the map is the second of them.
        return self.igmsa(light=torch.zeros_like(x), x=self.smsa(x)).movedim(-1, 1)


@pytest.mark.parametrize("patched", [False, True])
@torch.no_grad()
def test_spectral_attentions_are_read_with_channels_last(patched, monkeypatch):
    torch.manual_seed(0)
    # 3 channels, 3 rows and 3 columns: the shape alone does not tell the axes apart.
    model, image = Sequence().eval(), torch.rand(1, 3, 3, 3)
    if patched:
        exda.patch(model, init="paper", stride=1)
    seen = {}
    for name, attention in (("smsa", model.smsa), ("igmsa", model.igmsa)):
        attention.register_forward_hook(
            lambda module, inputs, keywords, output, name=name: seen.update({name: (inputs, keywords, output)}),
            with_kwargs=True,
        )
    monkeypatch.setattr("exda_primitives.workbench.inspection.collect.MULTIPLE", 1)
    found, powers = embeddings(model, image), spectra(model, image)
    looks = token_maps(model, image) if patched else {}
    for name, attention in (("smsa", model.smsa), ("igmsa", model.igmsa)):
        inputs, keywords, output = seen[name]
        x, output = (each.movedim(-1, 1) for each in (keywords.get("x", *inputs), output))
        flat = output[0].flatten(1)
        torch.testing.assert_close(found[name][0], torch.cat([flat.mean(1), flat.std(1, correction=0)]))
        expected = {"input": x, "output": output}
        if patched:
            v = attention.third(x.movedim(1, -1)).movedim(-1, 1) * (name == "smsa")
            expected |= {"linear value V": v, "non-linear value V'": attention.value(v)}
            torch.testing.assert_close(looks[name][0], attention.token.maps(x)[0])
        assert list(powers[name]) == list(expected)
        for power, maps in zip(powers[name].values(), expected.values(), strict=True):
            torch.testing.assert_close(power, radial_spectrum(maps), equal_nan=True)


def test_an_attention_of_no_family_is_refused():
    class Own(exda.ExDAAttention):
        def forward(self, x):
            return super().forward(x.movedim(-1, 1)).movedim(1, -1)

    with pytest.raises(exda.ConfigError, match="Own: belongs to no known family"):
        embeddings(nn.Sequential(nn.Conv2d(3, 8, 1), Around(Own(8, 2))), torch.rand(1, 3, 8, 8))


def test_an_attention_with_a_changed_forward_has_no_value_to_read():
    class Negated(exda.ExDAAttention):
        def forward(self, x):
            return super().forward(-x)

    assert has_value(exda.ExDAAttention(8, 2))
    assert has_value(ExDALast(8, 2))
    assert not has_value(Negated(8, 2))


def test_the_grid_of_tokens_is_needed_for_spectra():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = exda.ExDAXCAttention(3, 1, tokens=0, value="gelu")

        def forward(self, x):
            return self.attention(x.flatten(2).mT).mT.view_as(x)

    model = Tokens()
    image = torch.rand(1, 3, 16, 24)
    with pytest.raises(exda.ConfigError, match="does not say how they lie"):
        spectra(model, image)
    model.attention.grid = 16, 24
    power = spectra(model, image)["attention"]["input"]
    torch.testing.assert_close(power, radial_spectrum(image), equal_nan=True)


def test_tokens_are_of_the_map_that_values_come_from():
    class Guided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = exda.ExDASpectralAttention(3, 1)

        def forward(self, x):
            x = x.movedim(1, -1)
            return self.attention(x, illu_fea_trans=torch.zeros_like(x)).movedim(-1, 1)

    model, image = Guided(), torch.rand(1, 3, 16, 24)
    (found,) = collect(model, image, {"attention": model.attention}, compact_maps)["attention"]
    torch.testing.assert_close(found, model.attention.token.maps(image)[0])


class Conditioned(nn.Module):
    """A network whose attention takes a second argument."""

    def __init__(self, attention, further):
        super().__init__()
        self.attention, self.further = attention, further

    def forward(self, x):
        return self.attention(x, self.further)


def test_a_prior_modulates_the_maps_that_are_read():
    prior = torch.rand(1, 5)
    model, image = Conditioned(OneLayerForBoth(), prior), torch.rand(1, 8, 16, 24)
    exda.patch(model)
    attention = model.attention
    seen = attention.modulated(image, prior)
    (maps,) = collect(model, image, {"attention": attention}, compact_maps)["attention"]
    torch.testing.assert_close(maps, attention.token.maps(seen)[0])
    (v,) = collect(model, image, {"attention": attention}, value)["attention"]
    torch.testing.assert_close(v, attention.qkv_dwconv(attention.qkv(seen))[:, 16:])


def test_a_mask_is_applied_to_values_and_not_read_as_a_map():
    mask = torch.rand(1, 1, 4, 4).round()
    model, image = Conditioned(exda.ExDAMaskedAttention(8, 2), mask), torch.rand(1, 8, 16, 24)
    attention = model.attention
    (maps,) = collect(model, image, {"attention": attention}, compact_maps)["attention"]
    torch.testing.assert_close(maps, attention.token.maps(image)[0])
    (v,) = collect(model, image, {"attention": attention}, value)["attention"]
    masked = attention.qkv_dwconv(attention.qkv(image)) * nn.functional.interpolate(mask, size=(16, 24))
    torch.testing.assert_close(v, masked[:, 16:])
