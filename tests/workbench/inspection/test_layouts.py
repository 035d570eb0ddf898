"""Attentions of a third party's family whose maps have their channels last, or nowhere."""

import pytest
import torch
from tests.patching.hosts import MDTA
from tests.patching.models import Net
from tests.registries import forget_afterwards
from torch import nn

import exda_primitives as exda
from exda_primitives.workbench.inspection import embeddings
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.collect import collect
from exda_primitives.workbench.inspection.parts import compact_maps, value


class Last(MDTA):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ExDALast(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LastFamily(exda.ConvFamily):
    name = "last"
    replacement = ExDALast
    layout = exda.ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})

    def arguments(self, maps):
        return [x.permute(0, 2, 3, 1) for x in maps]


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
def test_parts(models, read):
    found = []
    for model in models:
        torch.manual_seed(1)
        exda.patch(model)
        (rows,) = collect(
            model, torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)), attentions(model), read
        ).values()
        found += rows
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_a_layout_without_channels_is_refused():
    class Flat(LastFamily):
        name = "flat"

        def arguments(self, maps):
            return [x.permute(0, 2, 3, 1).flatten(2) for x in maps]

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
    model, images = Net(Flattened(FlatAttention())), torch.rand(1, 3, 16, 24)
    with pytest.raises(exda.ConfigError, match=r"the family 'flat' makes \(1, 2, 15\) of a map"):
        embeddings(model, images)
    # Others are not concerned.
    assert len(embeddings(Net(MDTA()), images)) == 1


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
