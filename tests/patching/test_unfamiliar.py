"""Channel attention of no known family is reported as a near miss; modules that compute something else are not."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, depthwise, temperature
from .unchanged import unchanged


def attended(q, k, v, scale):
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * scale).softmax(-1) @ v


class Grouped(nn.Module):
    """A grouped convolution projects every channel separately, to several."""

    def __init__(self):
        super().__init__()
        self.scale = temperature(1, 4, 1, 1)
        self.project = nn.Conv2d(8, 48, 1, groups=8)
        self.back = nn.Conv2d(16, 8, 1, groups=8)

    def forward(self, x):
        q, k, v = rearrange(self.project(x), "b (c three e) h w -> three b e c (h w)", three=3, e=2)
        q, k, v = (rearrange(m, "b e (g c) n -> b (e g) c n", g=2) for m in (q, k, v))
        out = rearrange(attended(q, k, v, self.scale), "b (e g) c n -> b (g c e) n", g=2)
        return self.back(out.unflatten(2, x.shape[2:]))


class TwoBranches(MDTA):
    """A second attention after the first."""

    def __init__(self):
        super().__init__()
        self.to_q = nn.Conv2d(8, 8, 1)
        self.to_kv = nn.Conv2d(8, 16, 1)
        self.local = depthwise(16)

    def forward(self, x):
        first = super().forward(x)
        k, v = self.local(self.to_kv(first)).chunk(2, dim=1)
        q, k, v = (rearrange(m, "b (g c) h w -> b g c (h w)", g=2) for m in (self.to_q(x), k, v))
        return attended(q, k, v, self.temperature).flatten(1, 2).view_as(x)


class Tokens(nn.Module):
    """Channel attention on tokens, scaled by a number instead of normalised."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three g c) -> three b g c n", three=3, g=3)
        out = ((q * x.shape[1] ** -0.5) @ k.mT).softmax(-1) @ v
        return self.proj(out.flatten(1, 2).mT)


class Fused(Tokens):
    """The same with scaled_dot_product_attention."""

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three g c) -> three b g c n", three=3, g=3)
        return self.proj(F.scaled_dot_product_attention(q, k, v).flatten(1, 2).mT)


def helper(logits):
    return torch.softmax(logits, dim=-1)


class ChannelsLast(nn.Module):
    """On maps (B, H, W, C), with the softmax in a function outside the class."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x):
        q, v = self.first(x).flatten(1, 2).chunk(2, dim=-1)
        return self.second(torch.cat([helper(q.mT @ v) @ v.mT, v.mT], 1).mT).view_as(x)


class FiveWithoutSoftmax(nn.Module):
    """Five equal linear layers and a temperature, with a ReLU instead of the softmax."""

    def __init__(self):
        super().__init__()
        self.temperature = temperature(2, 1, 1)
        self.q, self.k, self.v, self.gate, self.out = (nn.Linear(8, 8) for _ in range(5))

    def forward(self, x):
        q, k, v = (rearrange(m(x), "b n (g c) -> b g c n", g=2) for m in (self.q, self.k, self.v))
        return self.out(((q @ k.mT * self.temperature).relu() @ v).flatten(1, 2).mT * self.gate(x))


class Frames(nn.Module):
    """Attention over the channels of five frames at once."""

    def __init__(self):
        super().__init__()
        self.temperature = temperature(2, 1, 1)
        self.mix, self.out = nn.Linear(5, 5), nn.Conv3d(8, 8, 1)

    def forward(self, x):
        q = rearrange(self.mix(x.movedim(2, -1)), "b (g c) h w t -> b g (c t) (h w)", g=2)
        return self.out(attended(q, q, q, self.temperature).reshape(x.shape))


class WeightsAsArguments(nn.Module):
    """MDTA without depthwise convolutions; another network computes its weights."""

    def __init__(self):
        super().__init__()
        self.temperature = temperature(2, 1, 1)

    def forward(self, x, weights):
        q, k, v = rearrange(F.conv2d(x, weights[0]), "b (three g c) h w -> three b g c (h w)", three=3, g=2)
        return F.conv2d(attended(q, k, v, self.temperature).reshape(x.shape), weights[1])


class OfTwoMaps(nn.Module):
    """q of one map, k and v of another, without a temperature."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 24, 1), nn.Conv2d(12, 12, 1)

    def forward(self, x, y):
        q, (k, v) = self.q(x).flatten(2), self.kv(y).flatten(2).chunk(2, dim=1)
        return self.out(((q @ k.mT).softmax(-1) @ v).view_as(x))


class Positions(nn.Module):
    """Adds an embedding of the positions, whose size is the only one that maps can have."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 12, 20, 36))
        self.qkv, self.out = nn.Conv2d(12, 36, 1), nn.Conv2d(12, 12, 1)

    def forward(self, x):
        q, k, v = self.qkv(x + self.positions).flatten(2).chunk(3, dim=1)
        return self.out(((q @ k.mT).softmax(-1) @ v).view_as(x))


class Sides(nn.Module):
    """A linear layer over each side, inside of a child, and the map's channels in a child of two layers."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12))
        self.over_rows = nn.Sequential(nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 40))
        self.over_columns = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 32))
        self.out = nn.Conv2d(12, 6, 1)

    def forward(self, x):
        x = self.enter(x)
        x = self.over_columns(self.over_rows(x.mT).mT).flatten(2)
        return self.out(((x @ x.mT).softmax(-1) @ x).unflatten(2, (40, 32)))


class WithoutLayers(nn.Module):
    """DANet's channel attention: the map itself is q, k and v."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        rows = x.flatten(2)
        return x + self.gamma * ((rows @ rows.mT).softmax(-1) @ rows).view_as(x)


class ByLargeKernels(nn.Module):
    """q, k and v by 3x3 convolutions."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(12, 12, 3, padding=1) for _ in range(3))

    def forward(self, x):
        q, k, v = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        return ((q @ k.mT).softmax(-1) @ v).view_as(x)


class Attend(nn.Module):
    """The softmax in a child without parameters."""

    def forward(self, q, k, v):
        return (q @ k.mT).softmax(-1) @ v


class ByChild(Tokens):
    def __init__(self):
        super().__init__()
        self.attend = Attend()

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three g c) -> three b g c n", three=3, g=3)
        return self.proj(self.attend(q, k, v).flatten(1, 2).mT)


def further(logits):
    return helper(logits)


class TwoCallsDeep(ChannelsLast):
    def forward(self, x):
        q, v = self.first(x).flatten(1, 2).chunk(2, dim=-1)
        return self.second(torch.cat([further(q.mT @ v) @ v.mT, v.mT], 1).mT).view_as(x)


class FlatTemperature(FiveWithoutSoftmax):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(2, 1))

    def forward(self, x):
        q, k, v = (rearrange(m(x), "b n (g c) -> b g c n", g=2) for m in (self.q, self.k, self.v))
        out = (q @ k.mT * self.temperature[..., None]).relu() @ v
        return self.out(out.flatten(1, 2).mT * self.gate(x))


class ScalarTemperature(FlatTemperature):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))


UNFAMILIAR = {
    "without layers": (WithoutLayers, "mdta", r"over channels, 24 x 24.*gamma \(1,\)"),
    "large kernels": (ByLargeKernels, "mdta", "over channels, 12 x 12.*q .Conv2d."),
    "by a child": (ByChild, "xca", "over channels, 4 x 4.*qkv 12 -> 36"),
    "two calls deep": (TwoCallsDeep, "smsa", "over channels, 12 x 12"),
    "flat temperature": (FlatTemperature, "xca", r"four equal layers.*temperature \(2, 1\)"),
    "scalar temperature": (ScalarTemperature, "xca", r"four equal layers.*temperature \(1,\)"),
    "grouped": (Grouped, "mdta", "over channels, 4 x 4.*project 8 -> 48 in 8 groups"),
    "two branches": (TwoBranches, "mdta", r"over channels, 4 x 4.*temperature \(2, 1, 1\).*to_kv 8 -> 16"),
    "tokens": (Tokens, "xca", r"over channels, 4 x 4.*qkv 12 -> 36.*no temperature \(heads, 1, 1\)"),
    "fused": (Fused, "xca", "over channels, 4 x 4.*no temperature"),
    "channels last, by a function": (ChannelsLast, "smsa", "over channels, 12 x 12"),
    "four equal layers": (FiveWithoutSoftmax, "xca", "four equal layers.*q 8 -> 8"),
    "two maps": (OfTwoMaps, "mdta", "over channels, 12 x 12.*kv 12 -> 24"),
    "positions": (Positions, "mdta", "only maps of 20 x 36 pixels.*may be over channels, 12 x 12.*positions"),
    "sides": (Sides, "mdta", "only maps of 40 x 32 pixels.*may be over channels, 12 x 12.*enter"),
    "weights": (WeightsAsArguments, "mdta", r"cannot be seen: it takes no single map.*temperature \(2, 1, 1\)"),
    "frames": (Frames, "mdta", "cannot be seen: it takes no single map or sequence.*out 8 -> 8"),
}


@pytest.mark.parametrize("name", UNFAMILIAR)
def test_channel_attention_of_no_family_is_a_near_miss_with_a_reason(name):
    make, family, reason = UNFAMILIAR[name]
    model = nn.ModuleDict({"attention": make(), "other": nn.Conv2d(8, 8, 1)})
    with unchanged(model):
        (miss,) = exda.plan(model).near_misses
    assert (miss.name, miss.type, miss.family) == ("attention", make.__name__, family)
    with pytest.raises(exda.NoMatchError, match=reason):
        exda.patch(model)


class Pixels(nn.Module):
    """Attention over pixels, with a temperature per head."""

    def __init__(self):
        super().__init__()
        self.temperature = temperature(2, 1, 1)
        self.kv, self.proj = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        k, v = rearrange(self.kv(x), "b (two g c) h w -> two b g (h w) c", two=2, g=2)
        return self.proj(attended(k, k, v, self.temperature).mT.reshape(x.shape))


class Windows(nn.Module):
    """Attention over the 64 pixels of windows; 64 divides the number of channels."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(64, 192, 1), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        windows = "three b (y i) (x j) c -> three (b y x) (i j) c"
        maps = rearrange(self.qkv(x), "b (three c) h w -> three b h w c", three=3)
        q, k, v = rearrange(maps, windows, i=8, j=8)
        y = x.shape[2] // 8
        return self.proj(rearrange((q @ k.mT).softmax(-1) @ v, "(b y x) (i j) c -> b c (y i) (x j)", b=1, y=y, i=8))


class Columns(nn.Module):
    """Attention over the W columns of a map, with rows and channels as features; W = 24 divides the channels."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(24, 72, 1), nn.Conv2d(24, 24, 1)

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b (three c) h w -> three b w (c h)", three=3)
        return self.proj(rearrange((q @ k.mT).softmax(-1) @ v, "b w (c h) -> b c h w", h=x.shape[2]))


class Rows(Columns):
    """The same over the H rows; H = 8 divides the channels."""

    def forward(self, x):
        return super().forward(x.mT).mT


class OneWindow(nn.Module):
    """Attention over the 64 pixels of a single window, by relative positions; 64 divides the number of channels."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(64, 192), nn.Linear(64, 64)
        self.positions = nn.Parameter(torch.zeros(1, 2, 64, 64))

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three g c) -> three b g n c", three=3, g=2)
        out = (q @ k.mT + self.positions).softmax(-1) @ v
        return self.proj(rearrange(out, "b g n c -> b n (g c)"))


class Gate(nn.Module):
    """A softmax over four experts."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)

    def forward(self, x):
        return x * self.gate(x.mean((2, 3))).softmax(-1).sum(-1)[:, None, None, None]


class Scaled(nn.Module):
    """A residual block with a scale per channel."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.first, self.second, self.third = (nn.Conv2d(8, 8, 1) for _ in range(3))

    def forward(self, x):
        return x + self.beta * self.third(self.second(self.first(x)).relu())


class Views(nn.Module):
    """Attention over the columns of two views, with four equal layers and two scales per channel."""

    def __init__(self):
        super().__init__()
        self.beta, self.gamma = (nn.Parameter(torch.ones(1, 8, 1, 1)) for _ in range(2))
        self.norm = nn.GroupNorm(1, 8)
        self.q, self.k, self.v, self.out = (nn.Conv2d(8, 8, 1) for _ in range(4))

    def forward(self, x, y):
        q, k, v = (m.movedim(1, -1) for m in (self.q(self.norm(x)), self.k(self.norm(y)), self.v(y)))
        return self.gamma * x + self.beta * self.out(((q @ k.mT).softmax(-1) @ v).movedim(-1, 1))


class TokensWithGamma(nn.Module):
    """Attention over tokens with four equal layers, and the weight of its branch."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.to_q, self.to_k, self.to_v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        return x + self.gamma * self.out((q @ k.mT).softmax(-1) @ v)


class PixelsOfOneSize(Positions):
    """The same over the 720 pixels."""

    def forward(self, x):
        q, k, v = self.qkv(x + self.positions).flatten(2).chunk(3, dim=1)
        return self.out((v @ (q.mT @ k).softmax(-1).mT).view_as(x))


class Mixed(nn.Module):
    """A mixture of several maps, by weights of a softmax, with a scale per channel."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.smooth = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, weights, others):
        return x + self.scale * self.smooth((weights.softmax(0) * torch.stack(others)).sum(0))


@pytest.mark.parametrize(
    "make",
    [Pixels, TokensWithGamma, Windows, OneWindow, Columns, Rows, Gate, Scaled, Views, PixelsOfOneSize, Attend, Mixed],
)
def test_other_modules_are_no_near_miss(make):
    assert not exda.plan(nn.ModuleDict({"module": make()})).near_misses


def test_families_restrict_the_near_misses():
    assert not exda.plan(nn.ModuleDict({"attention": Grouped()}), families="mdta").near_misses
