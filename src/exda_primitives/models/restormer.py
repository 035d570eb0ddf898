"""Restormer; loads the official state dicts strictly.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022;
https://github.com/swz30/Restormer for the names and the published configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .architecture import Architecture, StateShapes
from .arguments import check_equal_channels, unet_arguments
from .blocks import NormType, TransformerBlock
from .unet import UNet


class Restormer(UNet):
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
        dual_pixel_task: adds the embedding to the last features instead of the input to the output, so that input and
            output may have different numbers of channels.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if a level's channels cannot be
            divided among its heads, or if ``LayerNorm_type`` is unknown.
    """

    skip_conv: nn.Conv2d

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

        def skip() -> dict[str, nn.Module]:
            return {"skip_conv": nn.Conv2d(dim, 2 * dim, 1, bias=bias)} if dual_pixel_task else {}

        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            bias,
            block,
            insertions={"output": skip},
            latent_channels=8 * dim,
        )
        self.dual_pixel_task = dual_pixel_task

    def _finish(self, x: Tensor, embedded: Tensor, image: Tensor) -> Tensor:
        if not self.dual_pixel_task:
            return super()._finish(x, embedded, image)
        output: Tensor = self.output(x + self.skip_conv(embedded))
        return output


def _infer(state: StateShapes) -> dict[str, Any]:
    dual_pixel = "skip_conv.weight" in state
    if not dual_pixel:
        check_equal_channels(state)
    return unet_arguments(state) | {"dual_pixel_task": dual_pixel}


ARCHITECTURE = Architecture("restormer", Restormer, _infer)
