"""AdaIR; loads the official state dicts strictly.

Source: Cui et al., "AdaIR: Adaptive All-in-One Image Restoration via Frequency Mining and Modulation", ICLR 2025;
https://github.com/c-yn/AdaIR for the names and the published configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.precision import widen
from .architecture import Architecture, StateShapes
from .arguments import check_equal_channels, unet_arguments
from .blocks import CrossAttention, NormType, TransformerBlock
from .unet import UNet

_IMAGE_CHANNELS = 3
_PIXELS_PER_FREQUENCY = 128
"""Of a side of n pixels, int(n // 128 * rate) frequencies in each direction are low, for a rate in (0, 1)."""


class SpatialGate(nn.Module):
    """One weight per pixel, from the maximum and the mean of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns weights (B, 1, H, W) in (0, 1) for features (B, C, H, W)."""
        pooled = torch.cat((x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)), dim=1)
        return torch.sigmoid(self.spatial(pooled))


class ChannelGate(nn.Module):
    """One weight per channel, from the mean and the maximum of its pixels.

    Args:
        dim: channels C, at least 16.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, dim // 16, 1, bias=False), nn.ReLU(), nn.Conv2d(dim // 16, dim, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns weights (B, C, 1, 1) in (0, 1) for features (B, C, H, W)."""
        mean, maximum = x.mean(dim=(-2, -1), keepdim=True), x.amax(dim=(-2, -1), keepdim=True)
        return torch.sigmoid(self.mlp(mean) + self.mlp(maximum))


class FrequencyRefine(nn.Module):
    """Weights each of two bands by a gate computed from the other, and adds both.

    Args:
        dim: channels C, at least 16.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.SpatialGate = SpatialGate()
        self.ChannelGate = ChannelGate(dim)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Merges two maps (B, C, H, W); keeps the shape."""
        merged: Tensor = self.proj(low * self.SpatialGate(high) + high * self.ChannelGate(low))
        return merged


class FrequencyBlock(nn.Module):
    """Splits the image into low and high frequencies and lets the features attend to both.

    These faults of the official code are kept: the border between low and high is rounded down by ``int``, so no
    gradient ever reaches ``rate_conv``; no frequency is low unless both sides of the features have at least 256
    pixels; ``conv`` and ``score_gen`` are never used; ``channel_cross_l`` gets the high frequencies,
    ``channel_cross_h`` the low ones.

    Args:
        dim: channels C of the features, at least 16.
        num_heads: heads of the three attentions.
        bias: whether the attentions' convolutions have a bias.
        in_dim: channels of the image.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool, in_dim: int = _IMAGE_CHANNELS) -> None:
        super().__init__()
        self.para1 = nn.Parameter(torch.zeros(dim, 1, 1))
        self.para2 = nn.Parameter(torch.ones(dim, 1, 1))
        self.conv = nn.Conv2d(in_dim, dim, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(in_dim, dim, 3, padding=1, bias=False)
        self.score_gen = nn.Conv2d(2, 2, 7, padding=3)
        self.channel_cross_l = CrossAttention(dim, num_heads, bias)
        self.channel_cross_h = CrossAttention(dim, num_heads, bias)
        self.channel_cross_agg = CrossAttention(dim, num_heads, bias)
        self.frequency_refine = FrequencyRefine(dim)
        self.rate_conv = nn.Sequential(
            nn.Conv2d(dim, dim // 8, 1, bias=False), nn.GELU(), nn.Conv2d(dim // 8, 2, 1, bias=False)
        )

    def forward(self, image: Tensor, y: Tensor) -> Tensor:
        """Adapts features to the image's frequencies.

        Args:
            image: (B, in_dim, H', W'), of any size.
            y: features (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        high, low = self._bands(F.interpolate(image, y.shape[-2:], mode="bilinear"))
        high, low = self.channel_cross_l(high, y), self.channel_cross_h(low, y)
        adapted: Tensor = self.channel_cross_agg(y, self.frequency_refine(low, high))
        return adapted * self.para1 + y * self.para2

    def _bands(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the high and the low frequencies of the embedded image (absolute values, each (B, C, H, W))."""
        embedded = self.conv1(image)
        rates = torch.sigmoid(self.rate_conv(embedded.mean(dim=(-2, -1), keepdim=True))).flatten(1)
        height, width = embedded.shape[-2:]
        rows, columns = _is_low(rates[:, 0], height), _is_low(rates[:, 1], width)
        is_low = (rows[:, :, None] & columns[:, None, :])[:, None]
        # PyTorch has no FFT of half types for every size.
        spectrum = torch.fft.fft2(widen(embedded))
        high, low = (torch.fft.ifft2(spectrum * band).abs().to(embedded.dtype) for band in (~is_low, is_low))
        return high, low


def _is_low(rate: Tensor, length: int) -> Tensor:
    """Returns which frequencies of a side are low, (B, length), in the FFT's order, for a border ``rate``, (B,).

    The low frequencies are -a to a - 1 with a = int(length // 128 * rate); the band is not symmetric.
    """
    half = (length // _PIXELS_PER_FREQUENCY * rate).int()[:, None]
    place = torch.arange(length, device=rate.device)
    # Frequencies 0, 1, ..., then the negative ones, as fftfreq orders them. Written out instead of shifting a mask with
    # ifftshift, because a roll by a dynamic size cannot be exported to ONNX.
    frequency = torch.where(place < (length + 1) // 2, place, place - length)
    return (frequency >= -half) & (frequency < half)


class AdaIR(UNet):
    """Restormer's U-net with a frequency block after the latent level and after two levels of the decoder.

    As in the official code (see `FrequencyBlock`), images below 512 x 512 pixels have no low frequencies; below 1024
    only the last block has any, below 2048 only the last two. ``fre*.rate_conv`` never receives a gradient;
    ``fre*.conv`` and ``fre*.score_gen`` are never used. The official forward's second argument, which it ignores, is
    left out.

    Args:
        inp_channels: channels of the input image; only 3 can run with frequency blocks.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d. With frequency blocks at least 8.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels; the frequency blocks have the third level's.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions of Restormer's parts and of the cross attentions have a bias (the embedding and
            the resampling never have one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        decoder: whether there are frequency blocks; without them the network is a Restormer.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if channels cannot be divided among
            their heads, or if ``LayerNorm_type`` is unknown.
    """

    fre1: FrequencyBlock
    fre2: FrequencyBlock
    fre3: FrequencyBlock

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
        decoder: bool = True,
    ) -> None:
        def block(channels: int, num_heads: int) -> nn.Module:
            return TransformerBlock(channels, num_heads, ffn_expansion_factor, bias, LayerNorm_type)

        def frequency_blocks() -> dict[str, nn.Module]:
            return {f"fre{i}": FrequencyBlock(2 ** (4 - i) * dim, heads[2], bias) for i in (1, 2, 3)}

        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            bias,
            block,
            insertions={"encoder_level1": frequency_blocks} if decoder else {},
            latent_channels=8 * dim,
        )
        self.decoder = decoder

    def _leave(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        if not self.decoder:
            return x
        (image,) = condition
        if level == "latent":
            x = self.fre1(image, x)
        elif level == "decoder_level3":
            x = self.fre2(image, x)
        elif level == "decoder_level2":
            x = self.fre3(image, x)
        return x


def _infer(state: StateShapes) -> dict[str, Any]:
    # Without frequency blocks an AdaIR is a Restormer, in its keys and in what it computes; it is taken for that.
    state.require("fre1.para1")
    check_equal_channels(state)
    return unet_arguments(state)


ARCHITECTURE = Architecture("adair", AdaIR, _infer)
