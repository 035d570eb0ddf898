"""Attentions on tokens, the blocks that hold them, and look-alikes."""

import torch
import torch.nn.functional as F
from torch import nn

from .hosts import temperature


class XCA(nn.Module):
    """Cross-covariance attention, with the names of timm's XCiT."""

    def __init__(self, dim=8, num_heads=2, qkv_bias=True, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = temperature(num_heads, 1, 1)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        batch, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 4, 1)
        out = self.attend(q, k, v)
        return self.proj_drop(self.proj(out.permute(0, 3, 1, 2).reshape(batch, count, dim)))

    def attend(self, q, k, v):
        weights = self.weigh(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature)
        return self.attn_drop(weights) @ v

    def weigh(self, logits):
        return logits.softmax(-1)


class Renamed(nn.Module):
    """XCA with other names and another order, a temperature (1, heads, 1, 1), and einsum for the products."""

    def __init__(self, dim=8, nh=4):
        super().__init__()
        self.nh = nh
        self.out = nn.Linear(dim, dim, bias=False)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.tau = temperature(1, nh, 1, 1)

    def forward(self, tokens):
        q, k, v = (m.unflatten(-1, (self.nh, -1)) for m in self.to_qkv(tokens).chunk(3, dim=-1))
        q, k = (m / m.norm(dim=1, keepdim=True).clamp_min(1e-12) for m in (q, k))
        weights = (torch.einsum("bnhc,bnhd->bhcd", q, k) * self.tau).softmax(-1)
        return self.out(torch.einsum("bhcd,bnhd->bnhc", weights, v).flatten(2))


HOSTS = {
    "xca": XCA,
    "one-head": lambda: XCA(num_heads=1),
    "channel-a-head": lambda: XCA(num_heads=8),
    "plain": lambda: XCA(qkv_bias=False),
    "renamed": Renamed,
}


class Spatial(XCA):
    """Attention over tokens instead of channels, with exactly the parameters of XCA."""

    def attend(self, q, k, v):
        return super().attend(q.mT, k.mT, v.mT).mT


class ViT(XCA):
    """The ordinary attention of vision transformers."""

    def __init__(self):
        super().__init__()
        del self.temperature

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT


class NoNorm(XCA):
    def attend(self, q, k, v):
        return self.weigh(q @ k.mT / q.shape[-1] * self.temperature) @ v


class ReLU(XCA):
    def weigh(self, logits):
        return logits.relu()


class OtherAxis(XCA):
    def weigh(self, logits):
        return logits.softmax(-2)


class ValueIsQuery(XCA):
    def attend(self, q, k, v):
        return super().attend(v, k, q)


class FunctionalDropout(XCA):
    def weigh(self, logits):
        return F.dropout(logits.softmax(-1), 0.5, self.training)


class Branch(XCA):
    def __init__(self):
        super().__init__()
        self.local = nn.Conv1d(8, 8, 3, padding=1, groups=8)


class ThirdLinear(XCA):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 8)


class Buffer(XCA):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(8))


class TakesSize(XCA):
    def forward(self, x, height, width):
        return super().forward(x)


class GridTaken(XCA):
    """Has an attribute ``grid``, which means something else to the replacement."""

    def __init__(self):
        super().__init__()
        self.grid = 7


# Look-alike and the pattern that the message of its refusal must match.
LOOKALIKES = {
    "spatial": (Spatial, "output differs"),
    "no-norm": (NoNorm, "output differs"),
    "relu": (ReLU, "output differs"),
    "other-axis": (OtherAxis, "output differs"),
    "value-is-q": (ValueIsQuery, "output differs"),
    "attn-drop": (lambda: XCA(attn_drop=0.1), r"drops values.*\(attn_drop, p=0\.1\).*set p to 0"),
    "proj-drop": (lambda: XCA(proj_drop=0.25), r"drops values.*\(proj_drop, p=0\.25\)"),
    "functional-dropout": (FunctionalDropout, "output differs.*training mode"),
    "branch": (Branch, r"nothing else with parameters, found qkv 8 -> 24, proj 8 -> 8, local \(Conv1d\)"),
    "third-linear": (ThirdLinear, r"nothing else with parameters, found .*gate 8 -> 8"),
    "buffer": (Buffer, r"holds buffers \(mask\)"),
    "takes-size": (TakesSize, r"forward takes \(x, height, width\)"),
    "grid-taken": (GridTaken, "'grid' = 7"),
}


class SizedBlock(nn.Module):
    """A block as XCiT's, called with tokens and the map's two sides."""

    def __init__(self, attention=None, dim=8):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = XCA() if attention is None else attention

    def forward(self, x, height, width):
        return x + self.attn(self.norm(x))


class MapBlock(SizedBlock):
    """A block as EdgeNeXt's, called with a map."""

    def forward(self, x):
        out = super().forward(x.flatten(2).mT, None, None)
        return out.mT.unflatten(2, x.shape[2:])


class Net(nn.Module):
    """Convolution, blocks of either kind, convolution: ``blocks.0.attn``, ``blocks.1.attn``, ..."""

    def __init__(self, *blocks, dim=8):
        super().__init__()
        self.head = nn.Conv2d(3, dim, 3, padding=1)
        self.blocks = nn.ModuleList(blocks)
        self.tail = nn.Conv2d(dim, 3, 3, padding=1)

    def forward(self, image):
        x = self.head(image)
        size = x.shape[2:]
        for block in self.blocks:
            x = block(x) if isinstance(block, MapBlock) else block(x.flatten(2).mT, *size).mT.unflatten(2, size)
        return self.tail(x)


def two_blocks():
    return Net(SizedBlock(), MapBlock())
