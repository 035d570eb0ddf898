"""Restormer, taking the official state dicts strictly.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022;
https://github.com/swz30/Restormer for the names and the published configurations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import Downsample, NormType, PatchEmbed, TransformerBlock, Upsample, check_image

_LEVELS = 4
_MULTIPLE = 2 ** (_LEVELS - 1)


class Restormer(nn.Module):
    """A U-net of transformer blocks over four resolutions; it predicts what to add to its input.

    Published configurations: deraining and deblurring use the defaults; denoising uses
    ``LayerNorm_type="BiasFree"`` (grey images: one channel in and out); dual-pixel defocus deblurring takes 6
    channels, gives 3, and sets ``dual_pixel_task=True``.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions have a bias (the embedding and the resampling never have one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        dual_pixel_task: add the embedding to the last features, rather than the input to the output, so that
            input and output need not have the same number of channels.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if a level's channels cannot be
            divided among its heads, or if ``LayerNorm_type`` is unknown.
    """

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
        super().__init__()
        for name, value in (("num_blocks", num_blocks), ("heads", heads)):
            if len(value) != _LEVELS:
                raise ValueError(f"{name} needs one entry for each of the {_LEVELS} levels, got {list(value)}")

        def blocks(channels: int, level: int, depth: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    TransformerBlock(channels, heads[level], ffn_expansion_factor, bias, LayerNorm_type)
                    for _ in range(depth)
                )
            )

        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = blocks(dim, 0, num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(2 * dim, 1, num_blocks[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = blocks(4 * dim, 2, num_blocks[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(8 * dim, 3, num_blocks[3])
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = blocks(4 * dim, 2, num_blocks[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = blocks(2 * dim, 1, num_blocks[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = blocks(2 * dim, 0, num_blocks[0])
        self.refinement = blocks(2 * dim, 0, num_refinement_blocks)
        self.dual_pixel_task = dual_pixel_task
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, inp_img: Tensor) -> Tensor:
        """Restore a batch of images.

        Args:
            inp_img: (B, inp_channels, H, W), in [0, 1]; H and W multiples of 8.

        Returns:
            (B, out_channels, H, W); not clipped to [0, 1].

        Raises:
            ValueError: if the input is not 4-D, or H or W is not a multiple of 8.
        """
        check_image(inp_img, _MULTIPLE)
        embedded = self.patch_embed(inp_img)
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3(x), level3), dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(x), level2), dim=1)))
        x = self.decoder_level1(torch.cat((self.up2_1(x), level1), dim=1))
        x = self.refinement(x)
        if self.dual_pixel_task:
            x = x + self.skip_conv(embedded)
        output: Tensor = self.output(x)
        return output if self.dual_pixel_task else output + inp_img
