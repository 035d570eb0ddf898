"""The variants of the value path that are compared, and the networks around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...ops.terms import ValueForm, ValuePosition
from ...primitives import ExDAAttention

TOLERANCE = 0.02
"""Relative amount by which the widened control's number of parameters may differ from the one it has to match."""


@dataclass(frozen=True)
class Variant:
    """One variant of the attention.

    Attributes:
        title: title in tables.
        value: form of the value, see ``exda_primitives.NonlinearValue``.
        position: position of the value's non-linearity, ``"before"`` or ``"after"`` the aggregation.
        tokens: K, global spatial tokens per head.
        branch: add a linear g to the value, ``Conv1x1 -> DWConv3x3 -> Conv1x1``: all parameters of V + g(V), no GELU.
        widened: make the network wider until it has as many parameters as the one with V + g(V).
    """

    title: str
    value: ValueForm = "none"
    position: ValuePosition = "before"
    tokens: int = 0
    branch: bool = False
    widened: bool = False


LINEAR, WIDENED, RESIDUAL = "linear", "widened", "residual"
VARIANTS = {
    LINEAR: Variant("linear V (the host)"),
    WIDENED: Variant("linear V, widened", widened=True),
    "branch": Variant("V + linear g(V), no GELU", branch=True),
    RESIDUAL: Variant("V + g(V) before aggregation (the paper's)", "residual"),
    "replace": Variant("g(V) before aggregation", "replace"),
    "gelu": Variant("GELU(V), no parameters", "gelu"),
    "sigmoid": Variant("sigmoid(V), no parameters", "sigmoid"),
    "after": Variant("O + g(O) after aggregation", "residual", "after"),
    "replace-after": Variant("g(O) after aggregation", "replace", "after"),
    "token": Variant("linear V, 1 token", tokens=1),
    "token4": Variant("linear V, 4 tokens", tokens=4),
    "both": Variant("V + g(V), 1 token (the paper's whole)", "residual", tokens=1),
}
"""All variants by name; the others are compared with the first."""


class LinearBranch(nn.Module):
    """Computes ``V + g(V)`` without the GELU, on the values (last C channels) of a packed q, k, v (B, 3C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1)
        )

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, 3C, H, W) -> (B, 3C, H, W)."""
        q, k, v = qkv.chunk(3, dim=1)
        return torch.cat((q, k, v + self.g(v)), dim=1)


@dataclass(frozen=True)
class Layout:
    """Sizes of a network whose only non-linear parts are its attentions.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: kernel size of the first and the last convolution, odd.
        width: C, channels of the attentions.
        heads: heads of every attention.
        depth: number of attentions in a row.
        residual: add every attention's input to its output, and the network's input to its output.
    """

    in_channels: int
    out_channels: int
    kernel: int
    width: int
    heads: int
    depth: int = 1
    residual: bool = False


Build = Callable[[int, int, int, Variant, bool], nn.Module]
"""Builds a network's attention on maps (B, C, H, W): its place in the network, from 0 on; C; heads; the variant; and
whether its output projection has no bias."""


class AttentionNetwork(nn.Module):
    """``Conv -> attentions -> Conv``: attention with biases, no norm, no feed-forward, the paper's init.

    Args:
        layout: sizes of the network.
        variant: variant of the value path.
        width: C, in place of the layout's.
        fewer_biases: omit the biases of the first convolution and of the attentions' output projections. The
            convolutions after them have biases too, so that nothing is lost (except at zero-padded borders).
        build: builds each attention.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, layout: Layout, variant: Variant, width: int, fewer_biases: bool, build: Build) -> None:
        super().__init__()
        self.residual = layout.residual
        kernel, padding = layout.kernel, layout.kernel // 2
        self.first = nn.Conv2d(layout.in_channels, width, kernel, padding=padding, bias=not fewer_biases)
        self.attentions = nn.ModuleList(
            build(index, width, layout.heads, variant, fewer_biases) for index in range(layout.depth)
        )
        self.last = nn.Conv2d(width, layout.out_channels, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        features = self.first(x)
        for attention in self.attentions:
            features = features + attention(features) if self.residual else attention(features)
        restored: Tensor = self.last(features)
        return x + restored if self.residual else restored


def channel_network(layout: Layout, name: str) -> nn.Module:
    """Builds the network of a variant with Restormer's attention, initialised from PyTorch's global generator."""
    return attention_network(layout, name, _channels)


def attention_network(layout: Layout, name: str, build: Build) -> nn.Module:
    """Builds the network of a variant with attentions from ``build``, see ``parameter_matched``."""
    return parameter_matched(
        lambda variant, width, fewer_biases: AttentionNetwork(layout, variant, width, fewer_biases, build),
        layout,
        name,
    )


def parameter_matched(build: Callable[[Variant, int, bool], nn.Module], layout: Layout, name: str) -> nn.Module:
    """Builds a variant at the layout's width; the widened one at a width that matches the parameters of V + g(V).

    Args:
        build: makes a network from a variant, a width, and whether it has fewer biases, see ``AttentionNetwork``.
        layout: gives width and heads.
        name: name of the variant.

    Raises:
        ConfigError: there is no such variant, or no width matches within ``TOLERANCE``.
    """
    if name not in VARIANTS:
        raise ConfigError(f"{name!r} is no variant; there are {', '.join(VARIANTS)}")
    variant = VARIANTS[name]
    if not variant.widened:
        return build(variant, layout.width, False)
    # Networks built only to count their parameters must not advance the global generator.
    with torch.random.fork_rng(devices=[]):
        wanted = parameters(build(VARIANTS[RESIDUAL], layout.width, False))
        choices = [
            (abs(parameters(build(variant, width, fewer_biases)) - wanted), width, fewer_biases)
            for width in range(layout.width, 2 * layout.width, layout.heads)
            for fewer_biases in (False, True)
        ]
    off, width, fewer_biases = min(choices)
    if off > TOLERANCE * wanted:
        raise ConfigError(
            f"no width from {layout.width} on has {wanted} parameters within {TOLERANCE:.0%}; width {width} is off by "
            f"{off}: choose another layout"
        )
    return build(variant, width, fewer_biases)


def parameters(network: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(p.numel() for p in network.parameters())


def _channels(index: int, width: int, heads: int, variant: Variant, fewer_biases: bool) -> nn.Module:
    attention = ExDAAttention(
        width,
        heads,
        True,
        tokens=variant.tokens,
        value=variant.value,
        value_position=variant.position,
        init="paper",
    )
    if variant.branch:
        attention.qkv_dwconv = nn.Sequential(attention.part("qkv_dwconv"), LinearBranch(width))
    if fewer_biases:
        attention.part("project_out").bias = None
    return attention
