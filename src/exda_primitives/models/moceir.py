"""MoCE-IR; loads the official state dicts strictly.

Source: Zamfir et al., "Complexity Experts are Task-Discriminative Learners for Any Image Restoration", CVPR 2025;
https://github.com/eduardzamfir/MoCE-IR for the names and the configurations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .architecture import Architecture, ArchitectureMismatch, StateShapes, expansion_factor
from .arguments import check_equal_channels
from .blocks import (
    Attention,
    CrossAttention,
    Downsample,
    FeedForward,
    LayerNorm,
    NormType,
    PatchEmbed,
    Upsample,
    check_image,
)
from .moceir_experts import ComplexityScale, FrequencyEmbedding, MixtureOfExperts, RankType, expert_ranks

DepthType = Literal["lin", "double", "exp", "fact", "constant"]

_CROSS_KERNEL = 7
"""Side of the depthwise kernel of k and v in the decoder's cross attention."""


class EncoderBlock(nn.Module):
    """Restormer's block under other names, and with biases in its convolutions.

    Args:
        dim: channels.
        num_heads: attention heads.
        ffn_expansion_factor: hidden width of the feed-forward over ``dim``.
        norm_type: see `LayerNorm`.
    """

    def __init__(self, dim: int, num_heads: int, ffn_expansion_factor: float, norm_type: NormType) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(dim, norm_type) for _ in range(2))
        self.mixer = Attention(dim, num_heads, bias=True)
        self.ffn = FeedForward(dim, ffn_expansion_factor, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms (B, C, H, W); keeps the shape."""
        x = x + self.mixer(self.norms[0](x))
        out: Tensor = x + self.ffn(self.norms[1](x))
        return out


class DecoderBlock(nn.Module):
    """Attention and a mixture of experts side by side, merged by cross attention; then the feed-forward.

    Args:
        dim: channels.
        num_heads: heads of both attentions.
        ffn_expansion_factor: hidden width of the feed-forward over ``dim``.
        bias: whether the convolutions of the attentions and of the feed-forward have a bias.
        norm_type: see `LayerNorm`.
        experts: the mixture of experts, for ``dim`` channels.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_expansion_factor: float,
        bias: bool,
        norm_type: NormType,
        experts: MixtureOfExperts,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(dim, norm_type) for _ in range(2))
        self.proj = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(2))
        self.shared = Attention(dim, num_heads, bias)
        self.mixer = CrossAttention(dim, num_heads, bias, kv_kernel=_CROSS_KERNEL)
        self.ffn = FeedForward(dim, ffn_expansion_factor, bias)
        self.adapter = experts

    def forward(self, x: Tensor, frequencies: Tensor) -> Tensor:
        """Transforms (B, C, H, W) by a frequency embedding (B, freq_dim); keeps the shape."""
        normalised = self.norms[0](x)
        shared = self.shared(self.proj[0](normalised))
        adapted = self.adapter(self.proj[1](normalised), frequencies, shared)
        x = x + self.mixer(adapted, shared)
        out: Tensor = x + self.ffn(self.norms[1](x))
        return out


class Group(nn.Module):
    """Blocks one after the other.

    Args:
        layers: the blocks.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Transforms (B, C, H, W) by every block, each with the same ``condition``; keeps the shape."""
        for layer in self.layers:
            x = layer(x, *condition)
        return x


class MoCEIR(nn.Module):
    """A U-net whose decoder sends every image through experts of growing complexity.

    The defaults are the official constructor's, a network of few blocks. The published networks are MoCE-IR-S, with
    ``heads=[1, 2, 4, 8], num_blocks=[4, 6, 6, 8], num_dec_blocks=[2, 4, 4], num_refinement_blocks=4,
    stage_depth=[1, 1, 1], depth_type="constant", rank_type="spread"``, and MoCE-IR, which also has ``dim=48``.

    These faults of the official code are kept:

    - The routing adds Gaussian noise in evaluation, too, so the output depends on torch's random state. With the same
      seed it is the official output; for the same output twice, call ``torch.manual_seed`` before each forward.
    - Evaluation couples the images of a batch: every image gets the sum of the experts that all of them chose. To get
      each image's own result, restore one image at a time.
    - The depths have no effect: every round of an expert starts from the same features.
    - The high-pass kernel, meant to be frozen, is trained.

    Every parameter is used, but an image reaches only ``topk`` experts of each decoder block; the others get no
    gradient from it. With ``topk=1`` and ``bias=False`` the cross attention's normalisation cancels the gate, so the
    routing's gradient from the image is only rounding error, in the official code as here.

    In training mode each image gets its own experts, as in the official network. The official network then also
    computes an auxiliary loss, ``total_loss``, which balances the experts and is all that trains the routing. It is
    left out here, and with it the effect of ``with_complexity``. The official forward's second argument, which it
    ignores, is left out, too.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the output image.
        dim: channels d of the first level; the others have 2d, 4d, ...
        levels: number of resolutions, at least 2.
        heads: attention heads of the levels.
        num_blocks: blocks of the encoder's levels, ending with the latent one.
        num_dec_blocks: blocks of the decoder's levels, from full size down (without the latent level).
        ffn_expansion_factor: hidden width of the feed-forwards over their channels.
        num_refinement_blocks: blocks after the decoder, at full size with d channels.
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        bias: whether the decoder's convolutions and the last one have a bias. The encoder's, the latent level's and the
            refinement's always have one, the embedding's and the resampling's never.
        rank: see `expert_ranks`.
        num_experts: experts of each decoder block.
        depth_type: how depths grow from expert to expert; has no effect.
        stage_depth: depths of the decoder's levels, at least 1; has no effect.
        rank_type: see `expert_ranks`.
        topk: number of experts per image. Above 1, evaluation takes one image at a time.
        expert_layer: layer of an expert; only ``"FFTAttention"``, which the official code passes as a class.
        with_complexity: whether the auxiliary loss weights experts by their size; has no effect.
        complexity_scale: whether the experts' sizes, stored in the state dict, are relative to the largest (``"max"``)
            or the smallest (``"min"``).

    Raises:
        ValueError: if there are fewer than two levels, if ``heads``, ``num_blocks``, ``num_dec_blocks`` or
            ``stage_depth`` does not have an entry for each level (of the decoder), if a level's channels cannot be
            divided among its heads, if an expert would have no channels or no depth, if ``topk`` is above
            ``num_experts`` or below 1, or if a name is unknown.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 32,
        levels: int = 4,
        heads: Sequence[int] = (1, 1, 1, 1),
        num_blocks: Sequence[int] = (1, 1, 1, 3),
        num_dec_blocks: Sequence[int] = (1, 1, 1),
        ffn_expansion_factor: float = 2,
        num_refinement_blocks: int = 1,
        LayerNorm_type: NormType = "WithBias",  # noqa: N803 - the official name, which configuration files use
        bias: bool = False,
        rank: int = 2,
        num_experts: int = 4,
        depth_type: DepthType | int = "lin",
        stage_depth: Sequence[int] = (3, 2, 1),
        rank_type: RankType = "constant",
        topk: int = 1,
        expert_layer: Literal["FFTAttention"] = "FFTAttention",
        with_complexity: bool = False,
        complexity_scale: ComplexityScale = "max",
    ) -> None:
        super().__init__()
        _check_levels(levels, heads, num_blocks, num_dec_blocks, stage_depth)
        _check_experts(num_experts, topk, depth_type, stage_depth, expert_layer, complexity_scale)
        *widths, latent_width = (dim * 2**level for level in range(levels))

        def encoder_group(width: int, num_heads: int, depth: int) -> Group:
            return Group(EncoderBlock(width, num_heads, ffn_expansion_factor, LayerNorm_type) for _ in range(depth))

        def decoder_block(width: int, num_heads: int) -> DecoderBlock:
            ranks = expert_ranks(rank_type, rank, width, num_experts)
            experts = MixtureOfExperts(width, latent_width, ranks, topk, complexity_scale)
            return DecoderBlock(width, num_heads, ffn_expansion_factor, bias, LayerNorm_type, experts)

        self.multiple = 2 ** (levels - 1)
        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.freq_embed = FrequencyEmbedding(latent_width)
        self.enc = nn.ModuleList(
            nn.ModuleList([encoder_group(width, num_heads, depth), Downsample(width)])
            for width, num_heads, depth in zip(widths, heads[:-1], num_blocks[:-1], strict=True)
        )
        self.latent = encoder_group(latent_width, heads[-1], num_blocks[-1])
        self.dec = nn.ModuleList(
            nn.ModuleList(
                [
                    Upsample(2 * width),
                    nn.Conv2d(2 * width, width, 1, bias=bias),
                    Group(decoder_block(width, num_heads) for _ in range(depth)),
                ]
            )
            for width, num_heads, depth in zip(widths[::-1], heads[-2::-1], num_dec_blocks[::-1], strict=True)
        )
        self.refinement = encoder_group(dim, heads[0], num_refinement_blocks)
        self.output = nn.Conv2d(dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Restores a batch of images; see the class for the effects of noise and of batches.

        Args:
            x: (B, inp_channels, H, W), in [0, 1]; H and W multiples of 2^(levels - 1), which is 8 for four levels.

        Returns:
            (B, out_channels, H, W); not clipped to [0, 1].

        Raises:
            ValueError: if the input is not 4-D, if H or W is not such a multiple, or in evaluation for several images
                with ``topk`` above 1.
        """
        check_image(x, self.multiple)
        features = self.patch_embed(x)
        skips = []
        for group, downsample in cast("Iterable[nn.ModuleList]", self.enc):
            features = group(features)
            skips.append(features)
            features = downsample(features)
        features = self.latent(features)
        frequencies = self.freq_embed(features)
        for upsample, reduce, group in cast("Iterable[nn.ModuleList]", self.dec):
            features = reduce(torch.cat((upsample(features), skips.pop()), dim=1))
            features = group(features, frequencies)
        restored: Tensor = self.output(self.refinement(features)) + x
        return restored


def _check_levels(
    levels: int,
    heads: Sequence[int],
    num_blocks: Sequence[int],
    num_dec_blocks: Sequence[int],
    stage_depth: Sequence[int],
) -> None:
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}: a single one has no decoder")
    for name, entries, expected, what in (
        ("heads", heads, levels, "levels"),
        ("num_blocks", num_blocks, levels, "levels"),
        ("num_dec_blocks", num_dec_blocks, levels - 1, "levels of the decoder"),
        ("stage_depth", stage_depth, levels - 1, "levels of the decoder"),
    ):
        if len(entries) != expected:
            raise ValueError(f"{name} needs one entry for each of the {expected} {what}, got {list(entries)}")


def _check_experts(
    num_experts: int,
    topk: int,
    depth_type: DepthType | int,
    stage_depth: Sequence[int],
    expert_layer: str,
    complexity_scale: str,
) -> None:
    if not 1 <= topk <= num_experts:
        raise ValueError(f"topk must be between 1 and num_experts={num_experts}, got {topk}")
    if expert_layer != "FFTAttention":
        raise ValueError(f"expert_layer must be 'FFTAttention', the only one there is, got {expert_layer!r}")
    if complexity_scale not in ("max", "min"):
        raise ValueError(f"complexity_scale must be 'max' or 'min', got {complexity_scale!r}")
    if not isinstance(depth_type, int) and depth_type not in ("lin", "double", "exp", "fact", "constant"):
        raise ValueError(
            f"depth_type must be 'lin', 'double', 'exp', 'fact', 'constant' or a number, got {depth_type!r}"
        )
    depth = depth_type if isinstance(depth_type, int) else min(stage_depth)
    if depth < 1:
        raise ValueError(f"depths must be at least 1, got depth_type={depth_type!r}, stage_depth={list(stage_depth)}")


# The arguments of MoCE-IR-S.
_SMALL = {
    "heads": [1, 2, 4, 8],
    "num_blocks": [4, 6, 6, 8],
    "num_dec_blocks": [2, 4, 4],
    "num_refinement_blocks": 4,
    "stage_depth": [1, 1, 1],
    "depth_type": "constant",
    "rank_type": "spread",
}


def _infer(state: StateShapes) -> dict[str, Any]:
    state.require("freq_embed.high_conv.0.conv.weight")
    check_equal_channels(state)
    levels = state.depth("enc") + 1
    # Names by level, from full size down. The state dict numbers the decoder's levels from the smallest map up.
    encoder = [f"enc.{level}.0" for level in range(levels - 1)] + ["latent"]
    decoder = [f"dec.{levels - 2 - level}.2" for level in range(levels - 1)]
    dim = state.size("patch_embed.proj.weight")
    return {
        "inp_channels": state.size("patch_embed.proj.weight", 1),
        "out_channels": state.size("output.weight"),
        "dim": dim,
        "levels": levels,
        "heads": [_heads(state, group, [*decoder, "latent"][level]) for level, group in enumerate(encoder)],
        "num_blocks": [state.depth(f"{group}.layers") for group in encoder],
        "num_dec_blocks": [state.depth(f"{group}.layers") for group in decoder],
        "num_refinement_blocks": state.depth("refinement.layers"),
        "ffn_expansion_factor": _factor(state, [*encoder, *decoder, "refinement"]),
        "LayerNorm_type": "WithBias" if _with_norm_bias(state, [*encoder, *decoder, "refinement"]) else "BiasFree",
        "bias": "output.bias" in state,
        "depth_type": "constant",
        "stage_depth": [1] * (levels - 1),
        **_experts(state, {dim * 2**level: f"{group}.layers.0.adapter" for level, group in enumerate(decoder)}),
    }


def _heads(state: StateShapes, encoder: str, decoder: str) -> int:
    for temperature in (f"{encoder}.layers.0.mixer.temperature", f"{decoder}.layers.0.shared.temperature"):
        if temperature in state:
            return state.size(temperature)
    # A level without blocks has no attention to read the number of heads from; any number builds the same network.
    return 1


def _factor(state: StateShapes, groups: list[str]) -> float:
    outputs = [f"{group}.layers.0.ffn.project_out.weight" for group in groups if state.depth(f"{group}.layers")]
    return expansion_factor([(state.size(output), state.size(output, 1)) for output in outputs], likely=(2.0,))


def _with_norm_bias(state: StateShapes, groups: list[str]) -> bool:
    norms = [f"{group}.layers.0.norms.0.body" for group in groups]
    return any(f"{norm}.bias" in state for norm in norms) or not any(f"{norm}.weight" in state for norm in norms)


def _experts(state: StateShapes, adapters: dict[int, str]) -> dict[str, Any]:
    """Infers the experts' arguments.

    Args:
        state: shapes of the state dict.
        adapters: channels of each level of the decoder -> name of one of its mixtures of experts.

    Raises:
        ArchitectureMismatch: if no rule of `expert_ranks` gives the experts' channels.
    """
    found = {
        width: [state.size(f"{adapter}.experts.{i}.0.proj.0.weight") for i in range(state.depth(f"{adapter}.experts"))]
        for width, adapter in adapters.items()
        if state.depth(f"{adapter}.experts")
    }
    if not found:
        return {}
    number = max(map(len, found.values()))
    first = next(iter(found.values()))[0]
    # "spread" comes first because the published networks have it. If several rules fit, all build the same network.
    rules: list[tuple[RankType, int]] = [("spread", 2), ("constant", first), ("lin", first), ("double", first)]
    rules += [("exp", first), *(("fact", rank) for rank in range(1, 9))]
    for rank_type, rank in rules:
        if all(expert_ranks(rank_type, rank, width, number) == ranks for width, ranks in found.items()):
            return {"num_experts": number, "rank_type": rank_type, "rank": rank}
    raise ArchitectureMismatch(f"no rule gives experts of {' and '.join(map(str, found.values()))} channels")


ARCHITECTURE = Architecture("moceir", MoCEIR, _infer, {"moceir-s": _SMALL, "moceir": {**_SMALL, "dim": 48}})
