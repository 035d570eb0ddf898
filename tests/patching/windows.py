"""Window attentions as third parties write them, under other names, and look-alikes."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def positions(height, width):
    """Index (N, N) into the table of relative positions: pairs of pixels with equal offsets get equal numbers."""
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    offsets = pixels[:, None] - pixels[None] + torch.tensor([height - 1, width - 1])
    return offsets[..., 0] * (2 * width - 1) + offsets[..., 1]


class Swin(nn.Module):
    """With one table of relative positions."""

    def __init__(self, dim=8, heads=2, size=(4, 3)):
        super().__init__()
        self.heads, self.window_size = heads, size
        self.table = nn.Parameter(torch.randn((2 * size[0] - 1) * (2 * size[1] - 1), heads))
        self.register_buffer("index", positions(*size))
        self.all_three, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.drop = nn.Dropout(0.0)

    def logits(self, q, k):
        return q @ k.mT / math.sqrt(q.shape[-1])

    def bias(self):
        return self.table[self.index].movedim(-1, 0)

    def weights(self, logits):
        return logits.softmax(-1)

    def packed(self, x):
        return self.all_three(x)

    def attend(self, x, bias, mask):
        batch, pixels, dim = x.shape
        q, k, v = self.packed(x).view(batch, pixels, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = self.logits(q, k) + bias
        if mask is not None:
            logits = (logits.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        out = self.drop(self.weights(logits)) @ v
        return self.out(out.transpose(1, 2).reshape(batch, pixels, dim))

    def forward(self, x, mask=None):
        return self.attend(x, self.bias(), mask)


class Square(Swin):
    """A square window, without an attribute that holds its size."""

    def __init__(self):
        super().__init__(size=(3, 3))
        del self.window_size


class Called(Swin):
    """The caller passes the index of positions, as in HAT."""

    def __init__(self, size=(4, 3)):
        super().__init__(size=size)
        del self.index

    def forward(self, x, where, mask=None):
        return self.attend(x, self.table[where].movedim(-1, 0), mask)


class SwinV2(Swin):
    """Cosine logits with a learnt scale, and a bias that a network computes from offsets, as in Swin V2."""

    def __init__(self, biased=True):
        super().__init__()
        del self.table
        self.scale = nn.Parameter(torch.rand(self.heads, 1, 1) + 2)
        self.network = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, self.heads, bias=False))
        self.register_buffer("offsets", _offsets(*self.window_size), persistent=False)
        self.all_three = nn.Linear(8, 24, bias=False)
        if biased:
            self.bias_of_q, self.bias_of_v = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.biased = biased

    def packed(self, x):
        if not self.biased:
            return self.all_three(x)
        return F.linear(x, self.all_three.weight, torch.cat([self.bias_of_q, torch.zeros(8).to(x), self.bias_of_v]))

    def logits(self, q, k):
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return cosines * self.scale.clamp(max=math.log(100)).exp()

    def bias(self):
        return 16 * self.network(self.offsets).flatten(0, 2)[self.index].movedim(-1, 0).sigmoid()


def _offsets(height, width):
    down, right = torch.linspace(-1, 1, 2 * height - 1), torch.linspace(-1, 1, 2 * width - 1)
    return torch.cartesian_prod(down, right).view(1, len(down), len(right), 2)


class Unbiased(SwinV2):
    def __init__(self):
        super().__init__(biased=False)


class Projections(nn.Module):
    """One layer for q and one for k and v; returns all three split by heads."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.of_q, self.of_kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)

    def forward(self, x, source=None):
        k, v = self.of_kv(x if source is None else source).chunk(2, -1)
        return tuple(each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.of_q(x), k, v))


class Apart(Swin):
    """As Uformer's attention, whose forward accepts another map for the keys and values."""

    def __init__(self):
        super().__init__()
        self.all_three = Projections(8, self.heads)

    def packed(self, x):
        return torch.cat([each.transpose(1, 2).flatten(2) for each in self.all_three(x)], -1)

    def forward(self, x, source=None, mask=None):
        assert source is None
        return self.attend(x, self.bias(), mask)


class Relu(Swin):
    """ReLU instead of the softmax."""

    def weights(self, logits):
        return logits.relu()


class OtherScale(Swin):
    def logits(self, q, k):
        return q @ k.mT


class ValueFirst(Swin):
    """The packed projection holds v, q, k in this order."""

    def packed(self, x):
        q, k, v = self.all_three(x).chunk(3, -1)
        return torch.cat([v, q, k], -1)


class Dropping(Swin):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)


class WithNorm(Swin):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def packed(self, x):
        return self.all_three(self.norm(x))


class OddHeads(Swin):
    """A table of three columns, of which two are used."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(35, 3))

    def bias(self):
        return super().bias()[:2]


class Volume(Swin):
    """Windows of a video or a volume, with three sides."""

    def __init__(self):
        super().__init__()
        self.window_size = (2, 2, 3)


class Unlike(Swin):
    """Its attribute is no window's size, or not that of its positions."""

    def __init__(self, size):
        super().__init__()
        self.window_size = size
