"""MoCE-IR's experts of growing complexity, and the routing that chooses among them.

Source: Zamfir et al., "Complexity Experts are Task-Discriminative Learners for Any Image Restoration", CVPR 2025;
https://github.com/eduardzamfir/MoCE-IR for the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import factorial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.precision import widen
from .blocks import LayerNorm

RankType = Literal["constant", "lin", "double", "exp", "fact", "spread"]
ComplexityScale = Literal["max", "min"]


class FFTAttention(nn.Module):
    """Circular convolution of q with k inside square patches, by FFT, normalised and multiplied by v.

    Args:
        dim: channels C.
        patch_size: side of the patches in pixels; features are padded with zeros at the right and bottom to whole
            patches.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim)
        self.norm = LayerNorm(dim, "WithBias")
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape."""
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(x)).chunk(2, dim=1)
        convolved = self.norm(self._convolved(q, k))
        projected: Tensor = self.proj_out((convolved * v).to(v.dtype))
        return projected

    def _convolved(self, q: Tensor, k: Tensor) -> Tensor:
        """Returns the circular convolution irfft2(rfft2(q) * rfft2(k)) in each patch, for q and k of (B, C, H, W)."""
        height, width = q.shape[-2:]
        side = self.patch_size

        def spectrum(features: Tensor) -> Tensor:
            # PyTorch has no FFT of half types for every size.
            padded = F.pad(widen(features), (0, -width % side, 0, -height % side))
            # (B, C, H, W) -> (B, C, H / side, W / side, side, side): the FFT is over the pixels of each patch.
            return torch.fft.rfft2(padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4))

        patches = torch.fft.irfft2(spectrum(q) * spectrum(k), s=(side, side))
        return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :height, :width]


class Expert(nn.Module):
    """An `FFTAttention` over few channels, gated by features that all experts share, with a residual connection.

    Args:
        dim: channels C.
        rank: number of channels that the attention works on.
        patch_size: see `FFTAttention`.
    """

    def __init__(self, dim: int, rank: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.ModuleList(
            nn.Conv2d(inward, outward, 1, bias=False) for inward, outward in ((dim, rank), (dim, rank), (rank, dim))
        )
        self.body = FFTAttention(rank, patch_size)

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        """Transforms ``x``, gated by ``shared``, both (B, C, H, W); keeps the shape."""
        reduce, gate, expand = self.proj
        transformed: Tensor = x + expand(self.body(reduce(x)) * F.silu(gate(shared)))
        return transformed


class HighPass(nn.Module):
    """A depthwise 3x3 convolution, initially 8 times the pixel minus its eight neighbours.

    The official code means to freeze it but does not; it is trained here, too.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        nn.init.constant_(self.conv.weight, -1)
        nn.init.constant_(self.conv.weight[:, :, 1, 1], 8)

    def forward(self, x: Tensor) -> Tensor:
        """Filters (B, C, H, W); keeps the shape."""
        filtered: Tensor = self.conv(x)
        return filtered


class FrequencyEmbedding(nn.Module):
    """A vector for each image, computed from the high frequencies of its latent features.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.high_conv = nn.Sequential(HighPass(dim), nn.GELU())
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (B, C, H, W) as (B, C)."""
        embedded: Tensor = self.mlp(self.high_conv(x).mean(dim=(-2, -1)))
        return embedded


class Routing(nn.Module):
    """Chooses ``topk`` of E experts for each image, from its features and its frequency embedding, with added noise.

    The noise is Gaussian with standard deviation 1/E, one draw of (B, E) numbers per call, in evaluation as well.

    Args:
        dim: channels C of the features.
        freq_dim: length of the frequency embedding.
        topk: number of experts per image.
        complexity: (E,), the relative size of each expert. Only the official auxiliary loss reads it.
    """

    complexity: Tensor

    def __init__(self, dim: int, freq_dim: int, topk: int, complexity: Tensor) -> None:
        super().__init__()
        self.topk, self.num_experts = topk, len(complexity)
        self.register_buffer("complexity", complexity)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, self.num_experts, bias=False))
        self.freq_gate = nn.Linear(freq_dim, self.num_experts, bias=False)

    def forward(self, x: Tensor, frequencies: Tensor) -> Tensor:
        """Returns gates (B, E) for features (B, C, H, W) and an embedding (B, freq_dim); 0 for experts not chosen."""
        logits = self.gate(x) + self.freq_gate(frequencies)
        noise = torch.randn_like(logits) * (1 / self.num_experts)
        scores = (logits + noise).softmax(dim=-1)
        kept, chosen = scores.topk(self.topk, dim=-1)
        return torch.zeros_like(scores).scatter(1, chosen, kept)


class MixtureOfExperts(nn.Module):
    """The gated sum of the experts that a `Routing` chose; expert i has patches of 4 * 2^i pixels.

    Two faults of the official code are kept: the routing's noise in evaluation, and that evaluation couples the images
    of a batch. Every image then gets the sum of the experts that all images chose, each counted as often as it was
    chosen, times the image's own gate. In training, and for a single image, every image gets its own experts.

    Args:
        dim: channels C.
        freq_dim: length of the frequency embedding.
        ranks: number of channels that each expert's attention works on.
        topk: number of experts per image.
        complexity_scale: whether the experts' parameter counts, which only the official auxiliary loss reads, are
            stored as fractions of the largest (``"max"``) or multiples of the smallest (``"min"``).
    """

    def __init__(self, dim: int, freq_dim: int, ranks: list[int], topk: int, complexity_scale: ComplexityScale) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.ModuleList([Expert(dim, rank, patch_size=4 * 2**i)]) for i, rank in enumerate(ranks)
        )
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False)
        sizes = torch.tensor([sum(p.numel() for p in expert.parameters()) for expert in self.experts])
        unit = sizes.max() if complexity_scale == "max" else sizes.min()
        self.routing = Routing(dim, freq_dim, topk, sizes / unit)

    def forward(self, x: Tensor, frequencies: Tensor, shared: Tensor) -> Tensor:
        """Returns the gated sum of the chosen experts, after a 1x1 convolution.

        Args:
            x: features (B, C, H, W).
            frequencies: frequency embedding (B, freq_dim).
            shared: features that gate every expert, (B, C, H, W).

        Returns:
            (B, C, H, W).

        Raises:
            ValueError: in evaluation, for several images with ``topk`` above 1.
        """
        gates = self.routing(x, frequencies)
        if len(x) > 1 and not self.training:
            gates = self._coupled(gates)
        mixed = torch.zeros_like(x)
        for layers, gate in zip(cast("Iterable[nn.ModuleList]", self.experts), gates.unbind(dim=1), strict=True):
            # Each expert computes only the images that chose it.
            images = gate.nonzero().flatten()
            if len(images):
                weighted = gate[images, None, None, None] * layers[0](x[images], shared[images])
                mixed = mixed.index_add(0, images, weighted.to(mixed.dtype))
        projected: Tensor = self.proj_out(mixed)
        return projected

    def _coupled(self, gates: Tensor) -> Tensor:
        """Returns the official gates (B, E) in evaluation: an image's only gate, times how often each expert is chosen.

        gates.sum(1) is that only gate, because topk is 1 here.
        """
        if self.routing.topk > 1:
            raise ValueError(
                f"in evaluation MoCE-IR with topk={self.routing.topk} takes one image at a time, got {len(gates)}; "
                "call it for each of them"
            )
        return gates.sum(dim=1, keepdim=True) * gates.count_nonzero(dim=0)


def expert_ranks(rank_type: RankType, rank: int, dim: int, num_experts: int) -> list[int]:
    """Returns the number of channels that each expert's attention works on.

    Args:
        rank_type: the number for expert i = 0, 1, ...: ``"constant"`` (rank), ``"lin"`` (rank + i), ``"double"``
            (rank + 2i), ``"exp"`` (rank^(i+1)), ``"fact"`` ((rank + i)!), or ``"spread"`` (``dim`` for the last expert,
            half as many for each one before it; ``rank`` is ignored).
        rank: see ``rank_type``.
        dim: channels of the features.
        num_experts: number of experts.

    Raises:
        ValueError: if ``rank_type`` is unknown, or an expert would have no channels.
    """
    steps = range(num_experts)
    if rank_type == "constant":
        ranks = [rank for _ in steps]
    elif rank_type == "lin":
        ranks = [rank + i for i in steps]
    elif rank_type == "double":
        ranks = [rank + 2 * i for i in steps]
    elif rank_type == "exp":
        ranks = [rank ** (i + 1) for i in steps]
    elif rank_type == "fact":
        ranks = [factorial(rank + i) for i in steps]
    elif rank_type == "spread":
        ranks = [dim // 2 ** (num_experts - 1 - i) for i in steps]
    else:
        raise ValueError(f"rank_type must be 'constant', 'lin', 'double', 'exp', 'fact' or 'spread', got {rank_type!r}")
    if not ranks or min(ranks) < 1:
        raise ValueError(
            f"every expert needs a channel, got ranks {ranks} for {num_experts} experts of {dim} channels "
            f"(rank_type={rank_type!r}, rank={rank})"
        )
    return ranks
