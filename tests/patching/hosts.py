"""Attention modules as users write them: one function, many implementations."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


def temperature(*shape):
    # Random instead of 1, so that a replacement that drops the temperature is noticed.
    return nn.Parameter(1 + 3 * torch.rand(shape))


def depthwise(channels, kernel=3, dilation=1, bias=False):
    padding = kernel // 2 * dilation
    return nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)


class MDTA(nn.Module):
    """Restormer's attention, with the names of its paper and code."""

    def __init__(self, dim=8, num_heads=2, bias=False):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = temperature(num_heads, 1, 1)
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = depthwise(3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x):
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (rearrange(m, "b (head c) h w -> b head c (h w)", head=self.num_heads) for m in (q, k, v))
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(dim=-1)
        out = rearrange(weights @ v, "b head c (h w) -> b (head c) h w", h=x.shape[-2])
        return self.project_out(out)


class Renamed(nn.Module):
    """Restormer's attention without einops, under other names, its temperature (1, heads, 1, 1)."""

    def __init__(self, dim=8, nh=2):
        super().__init__()
        self.nh = nh
        self.proj = nn.Conv2d(dim, dim, 1)
        self.local = depthwise(3 * dim, bias=True)
        self.qkv_conv = nn.Conv2d(dim, 3 * dim, 1)
        self.tau = temperature(1, nh, 1, 1)

    def forward(self, feature):
        b, c, h, w = feature.shape
        qkv = self.local(self.qkv_conv(feature)).reshape(b, 3, self.nh, c // self.nh, h * w)
        q, k, v = qkv.unbind(1)
        q = q / torch.norm(q, dim=-1, keepdim=True).clamp_min(1e-12)
        k = k / torch.norm(k, dim=-1, keepdim=True).clamp_min(1e-12)
        scores = torch.einsum("bhcn,bhdn->bhcd", q, k) * self.tau
        return self.proj(torch.softmax(scores, -1).matmul(v).reshape(b, c, h, w))


class Wrapper(nn.Module):
    """A user-defined module around a convolution."""

    def __init__(self, conv):
        super().__init__()
        self.inner = conv

    def forward(self, x):
        return self.inner(x)


def with_depthwise(make):
    """An MDTA whose depthwise convolution is ``make(channels)``."""

    def build():
        host = MDTA()
        host.qkv_dwconv = make(24)
        return host

    return build


class WrappedMDTA(MDTA):
    """Wraps every convolution in a module: ``qkv.inner.weight`` or ``qkv.0.weight``."""

    def __init__(self, wrap=Wrapper):
        super().__init__()
        for name in ("qkv", "qkv_dwconv", "project_out"):
            setattr(self, name, wrap(getattr(self, name)))


def frozen_temperature():
    host = MDTA()
    host.temperature.requires_grad_(False)
    return host


class Idle(MDTA):
    """Has further children without parameters, as left over from experiments."""

    def __init__(self):
        super().__init__()
        self.before = nn.Identity()
        self.attn_drop = nn.Dropout(0.0)
        self.act = nn.Softmax(dim=-1)

    def forward(self, x):
        return self.attn_drop(super().forward(self.before(x)))


class OneLayerForBoth(MDTA):
    """A vector scales and shifts the input; one linear layer computes both from it."""

    def __init__(self):
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(5, 16, bias=False))

    def forward(self, x, vector):
        scale, shift = self.condition(vector).view(len(x), 16, 1, 1).chunk(2, dim=1)
        return super().forward(x * scale + shift)


class Cross(nn.Module):
    """q from the first map, k and v from the second."""

    def __init__(self, dim=8, num_head=2, kernel=3, bias=False):
        super().__init__()
        self.num_head = num_head
        self.temperature = temperature(num_head, 1, 1)
        self.q = nn.Conv2d(dim, dim, 1, bias=bias)
        self.q_dwconv = depthwise(dim, bias=bias)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.kv_dwconv = depthwise(2 * dim, kernel, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x, y):
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, dim=1)
        q, k, v = (m.unflatten(1, (self.num_head, -1)).flatten(3) for m in (self.q_dwconv(self.q(x)), k, v))
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(-1)
        return self.project_out((weights @ v).reshape(x.shape))


class OutputFirst(Cross):
    """Children in reverse order: q's projection and the output's have equal shapes, and order must not decide."""

    def __init__(self):
        super().__init__()
        self._modules = {name: self._modules[name] for name in reversed(self._modules)}


class Histogram(nn.Module):
    """Histoformer's attention: each channel's pixels are sorted, then attended in contiguous and interleaved bins."""

    def __init__(self, dim=8, num_heads=2, bias=False):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = temperature(num_heads, 1, 1)
        self.qkv = nn.Conv2d(dim, 5 * dim, 1, bias=bias)
        self.qkv_dwconv = depthwise(5 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x):
        half = x.shape[1] // 2
        rows, from_row = x[:, :half].sort(dim=-2)
        columns, from_column = rows.sort(dim=-1)
        # In place, so that the caller's map changes.
        x[:, :half] = columns
        q1, k1, q2, k2, v = self.qkv_dwconv(self.qkv(x)).flatten(2).chunk(5, dim=1)
        v, order = v.sort(dim=-1)
        q1, k1, q2, k2 = (m.gather(-1, order) for m in (q1, k1, q2, k2))
        boxes = self.attend(q1, k1, v, "b (head c) (run n) -> b head (c run) n")
        interleaved = self.attend(q2, k2, v, "b (head c) (n run) -> b head (c run) n")
        product = torch.zeros_like(v).scatter(-1, order, boxes) * torch.zeros_like(v).scatter(-1, order, interleaved)
        out = self.project_out(product.unflatten(2, x.shape[2:]))
        first = out[:, :half].clone()
        first = torch.zeros_like(first).scatter(-1, from_column, first)
        out[:, :half] = torch.zeros_like(first).scatter(-2, from_row, first)
        return out

    def attend(self, q, k, v, runs):
        length, heads = v.shape[-1], self.num_heads
        sizes = {"head": heads, "run": heads}
        q, k, v = (rearrange(F.pad(m, (0, -length % heads)), runs, **sizes) for m in (q, k, v))
        # A softmax with 1 added to its denominator.
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).exp()
        weights = weights / (weights.sum(-1, keepdim=True) + 1)
        there, back = runs.split(" -> ")
        return rearrange(weights @ v, f"{back} -> {there}", **sizes)[..., :length]
