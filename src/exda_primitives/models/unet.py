"""The U-net that Restormer and the networks made from it share.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .blocks import Downsample, PatchEmbed, Upsample, check_image

Insertions = Mapping[str, Callable[[], Mapping[str, nn.Module]]]
"""Name of a child -> a function that returns the children to register right before it."""

_LEVELS = 4
_MULTIPLE = 2 ** (_LEVELS - 1)
"""Height and width must be multiples of it, because each level halves them."""


class UNet(nn.Module):
    """Blocks over four resolutions, and a refinement; it predicts what to add to its input.

    A subclass adds children by ``insertions``, because the order in which children are registered is that of the state
    dict. It calls them in `_enter` and `_leave`, with what `_condition` returns for the image.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels.
        bias: whether the 1x1 convolutions that reduce channels and the last convolution have a bias.
        block: returns a block for a number of channels and of heads.
        insertions: children to insert, see `Insertions`.
        latent_channels: channels that the lowest level passes to the decoder.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries.
    """

    def __init__(
        self,
        inp_channels: int,
        out_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        num_refinement_blocks: int,
        heads: Sequence[int],
        bias: bool,
        block: Callable[[int, int], nn.Module],
        insertions: Insertions,
        latent_channels: int,
    ) -> None:
        super().__init__()
        for name, value in (("num_blocks", num_blocks), ("heads", heads)):
            if len(value) != _LEVELS:
                raise ValueError(f"{name} needs one entry for each of the {_LEVELS} levels, got {list(value)}")

        def blocks(channels: int, level: int, depth: int) -> nn.Sequential:
            return nn.Sequential(*(block(channels, heads[level]) for _ in range(depth)))

        def insert_before(child: str) -> None:
            if child in insertions:
                for name, module in insertions[child]().items():
                    self.add_module(name, module)

        self.patch_embed = PatchEmbed(inp_channels, dim)
        insert_before("encoder_level1")
        self.encoder_level1 = blocks(dim, 0, num_blocks[0])
        self.down1_2 = Downsample(dim)
        insert_before("encoder_level2")
        self.encoder_level2 = blocks(2 * dim, 1, num_blocks[1])
        self.down2_3 = Downsample(2 * dim)
        insert_before("encoder_level3")
        self.encoder_level3 = blocks(4 * dim, 2, num_blocks[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(8 * dim, 3, num_blocks[3])
        self.up4_3 = Upsample(latent_channels)
        self.reduce_chan_level3 = nn.Conv2d(latent_channels // 2 + 4 * dim, 4 * dim, 1, bias=bias)
        insert_before("decoder_level3")
        self.decoder_level3 = blocks(4 * dim, 2, num_blocks[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        insert_before("decoder_level2")
        self.decoder_level2 = blocks(2 * dim, 1, num_blocks[1])
        self.up2_1 = Upsample(2 * dim)
        insert_before("decoder_level1")
        self.decoder_level1 = blocks(2 * dim, 0, num_blocks[0])
        self.refinement = blocks(2 * dim, 0, num_refinement_blocks)
        insert_before("output")
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, inp_img: Tensor) -> Tensor:
        """Restores a batch of images.

        Args:
            inp_img: (B, inp_channels, H, W), in [0, 1]; H and W multiples of 8.

        Returns:
            (B, out_channels, H, W); not clipped to [0, 1].

        Raises:
            ValueError: if the input is not 4-D, or H or W is not a multiple of 8.
        """
        check_image(inp_img, _MULTIPLE)
        condition = self._condition(inp_img)
        embedded = self.patch_embed(inp_img)
        level1 = self._level("encoder_level1", embedded, condition)
        level2 = self._level("encoder_level2", self.down1_2(level1), condition)
        level3 = self._level("encoder_level3", self.down2_3(level2), condition)
        x = self._level("latent", self.down3_4(level3), condition)
        x = self.reduce_chan_level3(torch.cat((self.up4_3(x), level3), dim=1))
        x = self._level("decoder_level3", x, condition)
        x = self.reduce_chan_level2(torch.cat((self.up3_2(x), level2), dim=1))
        x = self._level("decoder_level2", x, condition)
        # The first level has no convolution that reduces the channels: from here on features have 2d.
        x = self._level("decoder_level1", torch.cat((self.up2_1(x), level1), dim=1), condition)
        return self._finish(self.refinement(x), embedded, inp_img)

    def _level(self, name: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        blocks: nn.Sequential = getattr(self, name)
        return self._leave(name, blocks(self._enter(name, x, condition)), condition)

    def _condition(self, image: Tensor) -> tuple[Tensor, ...]:
        """Returns what the inserted children need from the image (B, inp_channels, H, W); called once per forward."""
        return (image,)

    def _enter(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Transforms features (B, C, h, w) before the blocks of a level; must return C channels."""
        return x

    def _leave(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Transforms features (B, C, h, w) after the blocks of a level."""
        return x

    def _finish(self, x: Tensor, embedded: Tensor, image: Tensor) -> Tensor:
        """Returns the output image for the last features (B, 2d, H, W), the embedding (B, d, H, W) and the image."""
        output: Tensor = self.output(x)
        return output + image
