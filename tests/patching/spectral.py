"""Spectral attentions on maps (B, H, W, C), and a look-alike."""

import torch
import torch.nn.functional as F
from torch import nn


class Spectral(nn.Module):
    """S-MSA as in the papers, under other names; the attention's rows are the channels of ``rows``, "k" or "q"."""

    def __init__(self, dim=6, heads=2, rows="k", biased=False):
        super().__init__()
        self.heads, self.rows = heads, rows
        self.first, self.second, self.third = (nn.Linear(dim, dim, bias=biased) for _ in range(3))
        self.scale = nn.Parameter(torch.rand(heads, 1, 1) + 0.5)
        self.out = nn.Linear(dim, dim)
        convolutions = (nn.Conv2d(dim, dim, 3, 1, 1, groups=dim, bias=False) for _ in range(2))
        self.position = nn.Sequential(next(convolutions), nn.GELU(), next(convolutions))

    def attended(self, x, light):
        linear = self.third(x)
        q, k, v = (
            each.flatten(1, 2).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
            for each in (self.first(x), self.second(x), linear * light)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = k @ q.mT if self.rows == "k" else q @ k.mT
        out = (attention * self.scale).softmax(-1) @ v
        out = self.out(out.flatten(1, 2).mT).view_as(x)
        return out + self.position(linear.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def forward(self, x):
        return self.attended(x, torch.ones_like(x))


class Guided(Spectral):
    def forward(self, x, light):
        return self.attended(x, light)


class Linear(Spectral):
    """A look-alike: the same layers without any attention."""

    def forward(self, x):
        return self.out(self.third(x)) + self.position(self.first(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
