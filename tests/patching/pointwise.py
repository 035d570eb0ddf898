"""Channel attention with 1x1 convolutions only, packed or separate for q, k and v."""

import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .hosts import depthwise, temperature


class Packed(nn.Module):
    """One convolution for q, k and v, and no depthwise one."""

    def __init__(self, dim=8, heads=2):
        super().__init__()
        self.heads = heads
        self.rescale = temperature(heads, 1, 1)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.out = nn.Conv2d(dim, dim, 1)

    def qkv(self, x):
        return self.to_qkv(x).chunk(3, dim=1)

    def weigh(self, logits):
        return logits.softmax(-1)

    def forward(self, x):
        q, k, v = (rearrange(m, "b (g c) h w -> b g c (h w)", g=self.heads) for m in self.qkv(x))
        weights = self.weigh(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.rescale)
        return self.out(rearrange(weights @ v, "b g c (h w) -> b (g c) h w", h=x.shape[2]))


class Separate(Packed):
    """Three convolutions, registered in another order than q, k, v."""

    def __init__(self, dim=8):
        super().__init__(dim)
        del self.to_qkv
        self.third, self.first, self.second = (nn.Conv2d(dim, dim, 1) for _ in range(3))

    def qkv(self, x):
        return self.first(x), self.second(x), self.third(x)


class SeparateLocal(Separate):
    """Three convolutions, each followed by a depthwise one."""

    def __init__(self):
        super().__init__()
        self.third_local, self.first_local, self.second_local = (depthwise(8) for _ in range(3))

    def qkv(self, x):
        q, k, v = super().qkv(x)
        return self.first_local(q), self.second_local(k), self.third_local(v)
