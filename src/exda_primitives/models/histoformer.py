"""Histoformer; loads the official state dicts strictly.

Source: Sun et al., "Restoring Images in Adverse Weather Conditions via Histogram Transformer", ECCV 2024;
https://github.com/sunshangquan/Histoformer for the names and the published configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.sorting import BOXES, INTERLEAVED, sort_half, to_rows, to_sequences, unsort, unsort_half
from .architecture import Architecture, StateShapes
from .arguments import check_equal_channels, unet_arguments
from .blocks import NormType, check_heads, check_norm_type, rescaled, standardised
from .unet import UNet

_SKIP_CHANNELS = 3
"""Channels of the image that joins the features at each smaller size; fixed in the official code."""


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, without parameters.

    Args:
        norm_type: ``"WithBias"`` subtracts the mean; ``"BiasFree"`` does not.

    Raises:
        ValueError: if ``norm_type`` is neither.
    """

    def __init__(self, norm_type: NormType) -> None:
        super().__init__()
        check_norm_type(norm_type)
        self.norm_type = norm_type

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, H, W); keeps the shape."""
        return rescaled(x) if self.norm_type == "BiasFree" else standardised(x)


class HistogramAttention(nn.Module):
    """Dynamic-range histogram self-attention: rows of sorted values attend to each other, in two arrangements.

    The official module writes the sorted half of the channels into its input; this one does not change its input. In
    the network this makes no difference.

    Args:
        dim: channels C.
        num_heads: heads h; head i has the i-th run of C/h consecutive channels. Every channel's sorted pixels are cut
            into h rows as well, so that each head attends over C rows.
        bias: whether the three convolutions have a bias.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 5 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(5 * dim, 5 * dim, 3, padding=1, groups=5 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attends over the sorted rows of (B, C, H, W); keeps the shape."""
        size = x.shape[-2:]
        x_sorted, half_order = sort_half(x)
        q1, k1, q2, k2, v = self.qkv_dwconv(self.qkv(x_sorted)).chunk(5, dim=1)
        # v is sorted by its own values, and both pairs of q and k by v's order.
        v, order = v.flatten(2).sort(dim=-1)
        q1, k1, q2, k2 = (m.flatten(2).gather(2, order) for m in (q1, k1, q2, k2))
        product = self._branch(q1, k1, v, order, BOXES) * self._branch(q2, k2, v, order, INTERLEAVED)
        return unsort_half(self.project_out(product.unflatten(2, size)), half_order)

    def _branch(self, q: Tensor, k: Tensor, v: Tensor, order: Tensor, layout: str) -> Tensor:
        """Attends between sequences (B, C, N) sorted by v; returns (B, C, N) in the order of the pixels.

        Per head: A = softmax_1(temperature * q k^T) with rows of q and k L2-normalised, softmax_1(a) = exp(a) / (1 +
        sum(exp(a))).
        """
        length = v.shape[-1]
        q, k, v = (to_rows(m, self.num_heads, layout) for m in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).exp()
        attention = weights / (weights.sum(-1, keepdim=True) + 1)
        return unsort(to_sequences(attention @ v, length, layout), order)


class FeedForward(nn.Module):
    """Dual-scale gated feed-forward: at double height and width, a dilated 3x3 convolution gates a 5x5 one.

    Args:
        dim: channels C.
        ffn_expansion_factor: hidden width over C; the hidden width is rounded down and must then be a multiple of 4.
        bias: whether the four convolutions have a bias.
    """

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool) -> None:
        super().__init__()
        self.hidden = int(dim * ffn_expansion_factor)
        quarter = self.hidden // 4
        self.project_in = nn.Conv2d(dim, 2 * self.hidden, 1, bias=bias)
        self.dwconv_5 = nn.Conv2d(quarter, quarter, 5, padding=2, groups=quarter, bias=bias)
        self.dwconv_dilated2_1 = nn.Conv2d(quarter, quarter, 3, padding=2, dilation=2, groups=quarter, bias=bias)
        self.project_out = nn.Conv2d(self.hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape.

        Raises:
            ValueError: if the hidden width is not a multiple of 4.
        """
        if self.hidden % 4:
            raise ValueError(
                "the feed-forward's hidden width must be a multiple of 4, but "
                f"{self.project_out.out_channels} channels have {self.hidden}; "
                "the published network has dim=36, ffn_expansion_factor=2.667"
            )
        value, gate = F.pixel_shuffle(self.project_in(x), 2).chunk(2, dim=1)
        gated = F.mish(self.dwconv_dilated2_1(gate)) * self.dwconv_5(value)
        projected: Tensor = self.project_out(F.pixel_unshuffle(gated, 2))
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
        self.norm_g = LayerNorm(norm_type)
        self.attn_g = HistogramAttention(dim, num_heads, bias)
        self.norm_ff1 = LayerNorm(norm_type)
        self.ffn = FeedForward(dim, ffn_expansion_factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape."""
        x = x + self.attn_g(self.norm_g(x))
        out: Tensor = x + self.ffn(self.norm_ff1(x))
        return out


class SkipPatchEmbed(nn.Module):
    """Halves an image, (B, 3, H, W) to (B, 3, H/2, W/2), by average pooling and a separable convolution."""

    def __init__(self) -> None:
        super().__init__()
        channels = _SKIP_CHANNELS
        self.proj = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Halves the size of (B, 3, H, W)."""
        halved: Tensor = self.proj(x)
        return halved


class Histoformer(UNet):
    """Restormer's U-net with histogram attention; at each smaller size the image joins the features again.

    The published network has ``dim=36, num_blocks=[4, 4, 6, 8], ffn_expansion_factor=2.667``. The defaults are the
    official ones, which make a network that cannot run: its feed-forwards' hidden widths are not multiples of 4.

    The network sorts pixels, so a difference in a value's last bit can change their order: two float32 runs that sum in
    different orders may differ visibly. In float64 they agree.

    Args:
        inp_channels: channels of the input image; only 3 can run.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions have a bias (the embeddings and the resampling never have one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        dual_pixel_task: as in the official code, adds a convolution ``skip_conv`` that is never used.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if a level's channels cannot be
            divided among its heads, or if ``LayerNorm_type`` is unknown.
    """

    skip_patch_embed1: SkipPatchEmbed
    skip_patch_embed2: SkipPatchEmbed
    skip_patch_embed3: SkipPatchEmbed
    reduce_chan_level_1: nn.Conv2d
    reduce_chan_level_2: nn.Conv2d
    reduce_chan_level_3: nn.Conv2d

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",  # noqa: N803 - the official name, which configuration files use
        dual_pixel_task: bool = False,
    ) -> None:
        def block(channels: int, num_heads: int) -> nn.Module:
            return TransformerBlock(channels, num_heads, ffn_expansion_factor, bias, LayerNorm_type)

        def skips() -> dict[str, nn.Module]:
            modules: dict[str, nn.Module] = {f"skip_patch_embed{i}": SkipPatchEmbed() for i in (1, 2, 3)}
            for i in (1, 2, 3):
                channels = 2**i * dim
                modules[f"reduce_chan_level_{i}"] = nn.Conv2d(channels + _SKIP_CHANNELS, channels, 1, bias=bias)
            if dual_pixel_task:
                modules["skip_conv"] = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
            return modules

        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            bias,
            block,
            insertions={"output": skips},
            latent_channels=8 * dim,
        )

    def _condition(self, image: Tensor) -> tuple[Tensor, ...]:
        # The image at 1/2, 1/4 and 1/8 of its sides.
        half = self.skip_patch_embed1(image)
        quarter = self.skip_patch_embed2(half)
        return half, quarter, self.skip_patch_embed3(quarter)

    def _enter(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        half, quarter, eighth = condition
        if level == "encoder_level2":
            x = self.reduce_chan_level_1(torch.cat((x, half), dim=1))
        elif level == "encoder_level3":
            x = self.reduce_chan_level_2(torch.cat((x, quarter), dim=1))
        elif level == "latent":
            x = self.reduce_chan_level_3(torch.cat((x, eighth), dim=1))
        return x


_PUBLISHED = {"dim": 36, "num_blocks": [4, 4, 6, 8], "ffn_expansion_factor": 2.667}


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("skip_patch_embed1.proj.1.weight")
    check_equal_channels(state)
    return unet_arguments(state, "attn_g") | {"dual_pixel_task": "skip_conv.weight" in state}


ARCHITECTURE = Architecture("histoformer", Histoformer, _infer, {"histoformer": _PUBLISHED})
