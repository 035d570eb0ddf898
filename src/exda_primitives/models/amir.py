"""AMIR, as it computes in evaluation; loads the official state dicts strictly.

Source: Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing", MICCAI 2024;
https://github.com/Yaziwel/All-In-One-Medical-Image-Restoration-via-Task-Adaptive-Routing for the names and the
configuration.
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

# The sizes that are fixed in the official code.
_EXPERTS = 4
_CHOSEN = 2
"""Experts per pixel."""
_HIDDEN = 64
"""Channels inside the dictionary generator."""
_WORDS = 32
"""Entries of the dictionary."""
_INSTRUCTION = 256
"""Length of an instruction."""
_SMALLEST = 9
"""Least side of an image in pixels: two 3x3 convolutions of stride 3 need 9."""
_ZERO = torch.finfo(torch.float64).eps
"""Replaces 0 before a logarithm."""


class DictionaryGenerator(nn.Module):
    """Computes an image's instruction: a mixture of the entries of a learnt dictionary.

    Args:
        in_channels: channels of the image.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.rand(_WORDS, _INSTRUCTION))
        self.CondNet = nn.Sequential(
            nn.Conv2d(in_channels, _HIDDEN, 3, stride=3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(_HIDDEN, _HIDDEN, 3, stride=3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(_HIDDEN, _HIDDEN, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(_HIDDEN, _HIDDEN, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(_HIDDEN, _WORDS, 1),
        )
        self.lastOut = nn.Linear(_WORDS, _WORDS)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the instruction (B, 256) for an image (B, in_channels, H, W) of at least 9 x 9 pixels.

        Raises:
            ValueError: if H or W is smaller.
        """
        height, width = image.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise ValueError(f"AMIR needs at least {_SMALLEST} x {_SMALLEST} pixels, got {height} x {width}")
        weights = self.lastOut(self.CondNet(image).mean(dim=(-2, -1))).softmax(dim=1)
        return F.gelu(weights @ self.dictionary)


class Expert(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: channels C.
        hidden: channels between the two.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (..., C); keeps the shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class MixtureOfExperts(nn.Module):
    """Two of four experts for every pixel, merged as log(sum of gate * exp(expert)).

    Only the official training uses ``w_noise``, ``mean`` and ``std``; they are not read here. The output is
    discontinuous where another expert comes to be chosen: nearly equal logits may make it jump.

    Args:
        dim: channels C.
        expansion: hidden width of the experts over C; the hidden width is rounded down.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        self.w_gate = nn.Parameter(torch.zeros(2 * dim, _EXPERTS))
        self.w_noise = nn.Parameter(torch.zeros(2 * dim, _EXPERTS))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))
        self.experts = nn.ModuleList(Expert(dim, int(dim * expansion)) for _ in range(_EXPERTS))

    def forward(self, x: Tensor, instruction: Tensor) -> Tensor:
        """Transforms (B, C, H, W) by an instruction (B, C), projected to the features' channels; keeps the shape."""
        pixels = x.permute(0, 2, 3, 1)
        told = instruction[:, None, None, :].expand_as(pixels)
        logits, chosen = (torch.cat((pixels, told), dim=-1) @ self.w_gate).topk(_CHOSEN, dim=-1)
        gates = logits.new_zeros(*pixels.shape[:-1], _EXPERTS).scatter(-1, chosen, logits.softmax(dim=-1))
        merged = torch.zeros_like(pixels)
        for expert, gate in zip(self.experts, gates.split(1, dim=-1), strict=True):
            # Where an expert was not chosen, its output is set to 0 before exp, which might overflow: 0 * inf is NaN.
            merged = merged + gate * expert(pixels).masked_fill(gate == 0, 0).exp()
        return merged.masked_fill(merged == 0, _ZERO).log().permute(0, 3, 1, 2)


class SpatialRouting(nn.Module):
    """Adds the output of a mixture of experts to each pixel.

    Args:
        dim: channels C.
        expansion: hidden width of the experts over C.
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        self.fc = nn.Linear(_INSTRUCTION, dim)
        self.moe = MixtureOfExperts(dim, expansion)

    def forward(self, x: Tensor, instruction: Tensor) -> Tensor:
        """Transforms (B, C, H, W) by an instruction (B, 256); keeps the shape."""
        routed: Tensor = x + self.moe(x, self.fc(instruction))
        return routed


class ChannelRouting(nn.Module):
    """Scales and shifts every channel: x + (gamma x + beta) * sigmoid(fc(instruction)).

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.fc = nn.Linear(_INSTRUCTION, dim)

    def forward(self, x: Tensor, instruction: Tensor) -> Tensor:
        """Transforms (B, C, H, W) by an instruction (B, 256); keeps the shape."""
        gate = torch.sigmoid(self.fc(instruction))[:, :, None, None]
        return x + (x * self.gamma + self.beta) * gate


class AMIR(UNet):
    """Restormer's U-net, in which an instruction computed from the image routes the features of every level.

    In training mode the official network also adds noise to its gates and returns a second loss. This one always
    computes what the official one computes in evaluation.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d and 8d.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size with 2d channels.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        bias: whether the convolutions of Restormer's parts have a bias (the embedding and the resampling never have
            one).
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        dual_pixel_task: must be False; AMIR has no such branch.

    Raises:
        ValueError: if ``num_blocks`` or ``heads`` does not have four entries, if a level's channels cannot be
            divided among its heads, if ``LayerNorm_type`` is unknown, or if ``dual_pixel_task`` is set.
    """

    dict_generator: DictionaryGenerator

    def __init__(
        self,
        inp_channels: int = 1,
        out_channels: int = 1,
        dim: int = 42,
        num_blocks: Sequence[int] = (5, 7, 7, 9),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",  # noqa: N803 - the official name, which configuration files use
        dual_pixel_task: bool = False,
    ) -> None:
        if dual_pixel_task:
            raise ValueError("dual_pixel_task must be False: AMIR has no branch for it")

        def block(channels: int, num_heads: int) -> nn.Module:
            return TransformerBlock(channels, num_heads, ffn_expansion_factor, bias, LayerNorm_type)

        def routing() -> dict[str, nn.Module]:
            modules: dict[str, nn.Module] = {"dict_generator": DictionaryGenerator(inp_channels)}
            for level, width in ((1, dim), (2, 2 * dim), (3, 4 * dim)):
                modules[f"spatial_routing_encoder_level{level}"] = SpatialRouting(width, ffn_expansion_factor)
            modules["channel_routing_latent"] = ChannelRouting(8 * dim)
            for level, width in ((3, 4 * dim), (2, 2 * dim), (1, 2 * dim)):
                modules[f"channel_routing_decoder_level{level}"] = ChannelRouting(width)
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
            insertions={"encoder_level1": routing},
            latent_channels=8 * dim,
        )

    def _condition(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.dict_generator(image),)

    def _enter(self, level: str, x: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        (instruction,) = condition
        kind = "spatial" if level.startswith("encoder") else "channel"
        routing: nn.Module = getattr(self, f"{kind}_routing_{level}")
        routed: Tensor = routing(x, instruction)
        return routed


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("dict_generator.dictionary")
    check_equal_channels(state)
    return unet_arguments(state)


ARCHITECTURE = Architecture("amir", AMIR, _infer)
