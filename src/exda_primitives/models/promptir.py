"""PromptIR; loads the official state dicts strictly.

Source: Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023;
https://github.com/va1shn9v/PromptIR for the names and the published configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import Architecture, StateShapes
from .arguments import check_equal_channels, unet_arguments
from .blocks import NormType, TransformerBlock
from .unet import UNet

_DIM = 48
# The sizes that are fixed in the official code. Tuples are for prompt1, prompt2 and prompt3.
_PROMPTS = 5
_PROMPT_CHANNELS = (64, 128, 320)
_PROMPT_SIZES = (64, 32, 16)
_REDUCED_PROMPT_CHANNELS = (64, 128, 256)
"""Outputs of the ``chnl_reduce`` convolutions, which are never used."""


class PromptGenerator(nn.Module):
    """Mixes learnt prompts for each image, by weights that are computed from its features.

    Args:
        prompt_dim: channels P of a prompt.
        prompt_len: number of prompts to mix.
        prompt_size: height and width, in pixels, at which they are stored.
        lin_dim: channels C of the features.
    """

    def __init__(self, prompt_dim: int, prompt_len: int, prompt_size: int, lin_dim: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompt_len, prompt_dim, prompt_size, prompt_size))
        self.linear_layer = nn.Linear(lin_dim, prompt_len)
        self.conv3x3 = nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the prompt (B, P, H, W) for features (B, C, H, W)."""
        weights = self.linear_layer(x.mean(dim=(-2, -1))).softmax(dim=1)
        mixed = (weights[:, :, None, None, None] * self.prompt_param).sum(dim=1)
        prompt: Tensor = self.conv3x3(F.interpolate(mixed, x.shape[-2:], mode="bilinear"))
        return prompt


class PromptIR(UNet):
    """Restormer's U-net with a prompt and one more block after the latent level and after two levels of the decoder.

    As in the official code, some parameters are never used, and so never trained: ``chnl_reduce1`` to ``chnl_reduce3``
    and ``reduce_noise_channel_1`` to ``reduce_noise_channel_3``. The official forward's second argument, which it
    ignores, is left out.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d. Only 48 fits the prompts.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels; the blocks after the prompts have the third level's.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions have a bias (the embedding, the resampling and the prompts' never have one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        decoder: must be True: the official network without prompts cannot run.

    Raises:
        ValueError: if ``dim`` is not 48 or ``decoder`` is not True, if ``num_blocks`` or ``heads`` does not have four
            entries, if channels cannot be divided among their heads, or if ``LayerNorm_type`` is unknown.
    """

    prompt1: PromptGenerator
    prompt2: PromptGenerator
    prompt3: PromptGenerator
    noise_level1: TransformerBlock
    noise_level2: TransformerBlock
    noise_level3: TransformerBlock
    reduce_noise_level1: nn.Conv2d
    reduce_noise_level2: nn.Conv2d
    reduce_noise_level3: nn.Conv2d

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = _DIM,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",  # noqa: N803 - the official name, which configuration files use
        decoder: bool = True,
    ) -> None:
        if dim != _DIM:
            raise ValueError(f"dim must be {_DIM}, the prompts' widths being fixed, got {dim}")
        if not decoder:
            raise ValueError("decoder must be True: without its prompts PromptIR's levels do not fit together")

        def block(channels: int, num_heads: int) -> nn.Module:
            return TransformerBlock(channels, num_heads, ffn_expansion_factor, bias, LayerNorm_type)

        def unused(level: int) -> nn.Conv2d:
            channels = 2 ** (level - 1) * dim
            return nn.Conv2d(channels + _REDUCED_PROMPT_CHANNELS[level - 1], channels, 1, bias=bias)

        def prompts() -> dict[str, nn.Module]:
            modules: dict[str, nn.Module] = {}
            for i, (channels, size) in enumerate(zip(_PROMPT_CHANNELS, _PROMPT_SIZES, strict=True), 1):
                modules[f"prompt{i}"] = PromptGenerator(channels, _PROMPTS, size, 2**i * dim)
            for i, widths in enumerate(zip(_PROMPT_CHANNELS, _REDUCED_PROMPT_CHANNELS, strict=True), 1):
                modules[f"chnl_reduce{i}"] = nn.Conv2d(*widths, 1, bias=bias)
            return {**modules, "reduce_noise_channel_1": unused(1)}

        def prompted(level: int) -> dict[str, nn.Module]:
            # reduce_noise_level3 also halves the latent level's 8d channels to 4d, as in the official network.
            features, reduced = 2**level * dim, 2 ** min(level, 2) * dim
            channels = features + _PROMPT_CHANNELS[level - 1]
            return {
                f"noise_level{level}": block(channels, heads[2]),
                f"reduce_noise_level{level}": nn.Conv2d(channels, reduced, 1, bias=bias),
            }

        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            bias,
            block,
            insertions={
                "encoder_level1": prompts,
                "encoder_level2": lambda: {"reduce_noise_channel_2": unused(2)},
                "encoder_level3": lambda: {"reduce_noise_channel_3": unused(3)},
                "decoder_level3": lambda: prompted(3),
                "decoder_level2": lambda: prompted(2),
                "decoder_level1": lambda: prompted(1),
            },
            latent_channels=4 * dim,
        )

    def _leave(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        if level == "latent":
            x = self.reduce_noise_level3(self.noise_level3(torch.cat((x, self.prompt3(x)), dim=1)))
        elif level == "decoder_level3":
            x = self.reduce_noise_level2(self.noise_level2(torch.cat((x, self.prompt2(x)), dim=1)))
        elif level == "decoder_level2":
            x = self.reduce_noise_level1(self.noise_level1(torch.cat((x, self.prompt1(x)), dim=1)))
        return x


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("prompt1.prompt_param")
    check_equal_channels(state)
    return unet_arguments(state)


ARCHITECTURE = Architecture("promptir", PromptIR, _infer)
