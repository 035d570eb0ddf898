"""Building blocks shared by Restormer and the networks made from it.

Children and parameters are named as in the official checkpoints, so that their state dicts load strictly.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormType = Literal["WithBias", "BiasFree"]

_NORM_EPS = 1e-5


def check_image(x: Tensor, multiple: int) -> None:
    """Checks that the U-net can halve an input as often as it needs to.

    Args:
        x: the network's input.
        multiple: number of pixels by which height and width must be divisible.

    Raises:
        ValueError: if ``x`` is not (B, C, H, W), or H or W is not a multiple of ``multiple``.
    """
    if x.ndim != 4:
        raise ValueError(
            f"expected an image batch of shape (B, C, H, W), got {x.ndim} dimension(s): {tuple(x.shape)}; "
            "for a single image of shape (C, H, W) pass image[None]"
        )
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"height and width must be multiples of {multiple}, got {height} x {width}; pad by reflection on "
            f"the right and bottom, e.g. torch.nn.functional.pad(x, (0, -W % {multiple}, 0, -H % {multiple}), "
            "mode='reflect'), and crop the output back"
        )


def check_heads(dim: int, num_heads: int) -> None:
    """Checks that the channels can be divided equally among the heads.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """
    if dim % num_heads:
        raise ValueError(f"{dim} channels cannot be shared out equally among {num_heads} heads")


def check_norm_type(norm_type: str) -> None:
    """Checks the name of a normalisation.

    Raises:
        ValueError: if ``norm_type`` is neither ``"WithBias"`` nor ``"BiasFree"``.
    """
    if norm_type not in ("WithBias", "BiasFree"):
        raise ValueError(f"LayerNorm_type must be 'WithBias' or 'BiasFree', got {norm_type!r}")


def _inverse_deviation(centred: Tensor) -> Tensor:
    """Returns 1 / sqrt(variance + eps) over the channels, (B, 1, H, W), of (B, C, H, W) with mean 0."""
    # Two means rather than torch.var, which is several times slower on CPU over a strided dimension.
    return torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + _NORM_EPS)


def standardised(x: Tensor) -> Tensor:
    """Returns (B, C, H, W) shifted and scaled to mean 0 and variance 1 over the channels of each pixel."""
    centred = x - x.mean(dim=1, keepdim=True)
    return centred * _inverse_deviation(centred)


def rescaled(x: Tensor) -> Tensor:
    """Returns (B, C, H, W) scaled to variance 1 over the channels of each pixel, without subtracting their mean."""
    centred = x - x.mean(dim=1, keepdim=True)
    return x * _inverse_deviation(centred)


class _WithBias(nn.Module):
    """The usual layer normalisation, over the channels of each pixel; keeps the shape (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return standardised(x) * self.weight[:, None, None] + self.bias[:, None, None]


class _BiasFree(nn.Module):
    """Division by the channels' standard deviation, without subtracting the mean; keeps the shape (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rescaled(x) * self.weight[:, None, None]


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel.

    Args:
        dim: channels.
        norm_type: ``"WithBias"`` subtracts the mean and adds a bias; ``"BiasFree"`` does neither (used for
            denoising, after Mohan et al., "Robust and interpretable blind image denoising via bias-free
            convolutional neural networks", ICLR 2020).

    Raises:
        ValueError: if ``norm_type`` is neither.
    """

    def __init__(self, dim: int, norm_type: NormType) -> None:
        super().__init__()
        check_norm_type(norm_type)
        self.body: nn.Module = _BiasFree(dim) if norm_type == "BiasFree" else _WithBias(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, H, W); keeps the shape."""
        normalised: Tensor = self.body(x)
        return normalised


def transposed_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Returns (B, C, H, W), for which channels of ``q`` attend to those of ``k`` and average those of ``v``.

    Per head: A = softmax(temperature * q k^T), (C/h x C/h), with q and k L2-normalised over the N = H * W pixels; the
    output is A v. ``q``, ``k`` and ``v`` are (B, C, H, W), ``temperature`` is (h, 1, 1) for h heads.
    """
    batch, channels, height, width = v.shape
    heads = (batch, len(temperature), channels // len(temperature), height * width)
    q, k, v = (part.reshape(heads) for part in (q, k, v))
    logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    attention = (logits * temperature).softmax(dim=-1)
    return (attention @ v).reshape(batch, channels, height, width)


class Attention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA): channels attend to channels, at a cost linear in pixels.

    Args:
        dim: channels C.
        num_heads: heads h; head i has the i-th run of C/h consecutive channels.
        bias: whether the three convolutions have a bias.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attends over the channels of (B, C, H, W); keeps the shape."""
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        projected: Tensor = self.project_out(transposed_attention(q, k, v, self.temperature))
        return projected


class CrossAttention(nn.Module):
    """MDTA between two maps: q is computed from one, k and v from the other.

    Args:
        dim: channels C of both maps.
        num_heads: heads h; head i has the i-th run of C/h consecutive channels.
        bias: whether the five convolutions have a bias.
        kv_kernel: side of the kernel of k's and v's depthwise convolution, odd.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool, kv_kernel: int = 3) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.q = nn.Conv2d(dim, dim, 1, bias=bias)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=bias)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.kv_dwconv = nn.Conv2d(2 * dim, 2 * dim, kv_kernel, padding=kv_kernel // 2, groups=2 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Channels of ``x`` attend to those of ``y``, both (B, C, H, W); keeps the shape."""
        k, v = self.kv_dwconv(self.kv(y)).chunk(2, dim=1)
        attended = transposed_attention(self.q_dwconv(self.q(x)), k, v, self.temperature)
        projected: Tensor = self.project_out(attended)
        return projected


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN).

    Args:
        dim: channels C.
        ffn_expansion_factor: hidden width over C; the hidden width is rounded down.
        bias: whether the three convolutions have a bias.
    """

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * ffn_expansion_factor)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        projected: Tensor = self.project_out(F.gelu(gate) * value)
        return projected


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each after a normalisation and with a residual connection.

    Args:
        dim: channels.
        num_heads: attention heads.
        ffn_expansion_factor: hidden width of the feed-forward over ``dim``.
        bias: whether the convolutions have a bias.
        norm_type: see `LayerNorm`.
    """

    def __init__(self, dim: int, num_heads: int, ffn_expansion_factor: float, bias: bool, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, norm_type)
        self.attn = Attention(dim, num_heads, bias)
        self.norm2 = LayerNorm(dim, norm_type)
        self.ffn = FeedForward(dim, ffn_expansion_factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """A 3x3 convolution from the image to the first features; a "patch" is one pixel.

    Args:
        in_channels: channels of the image.
        dim: channels of the features.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (B, in_channels, H, W) as (B, dim, H, W)."""
        embedded: Tensor = self.proj(x)
        return embedded


class Downsample(nn.Module):
    """(B, C, H, W) to (B, 2C, H/2, W/2), by pixel-unshuffle.

    Args:
        dim: channels C of the input.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Halves the size of (B, C, H, W)."""
        halved: Tensor = self.body(x)
        return halved


class Upsample(nn.Module):
    """(B, C, H, W) to (B, C/2, 2H, 2W), by pixel-shuffle.

    Args:
        dim: channels C of the input.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Doubles the size of (B, C, H, W)."""
        doubled: Tensor = self.body(x)
        return doubled
