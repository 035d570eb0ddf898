"""Approximates a function of one number by attention alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...primitives import NonlinearValue
from .experiment import Experiment, Metric
from .variants import VARIANTS, Layout, LinearBranch, Variant, channel_network, parameter_matched

BOUND, POINTS, WINDOW = 2.2, 256, 9
"""The function's domain is [-BOUND, BOUND]; points per set; positions that a window covers."""

CHANNELS, POSITIONS = "channel attention", "attention over a window"
ORDERS = (0, 2, 4)
CONDITIONS = tuple(f"{kind}, order {order}" for kind in (CHANNELS, POSITIONS) for order in ORDERS)


class FunctionExperiment(Experiment):
    """Approximates a 1-D function on [-2.2, 2.2], after the paper's first diagnostic.

    The paper (linear values 50.4% worse than non-linear ones) gives neither function nor architecture. These are ours:

    - *Function* (``target_function``): ``sin 5x + x^2 / 5 + 0.4 tanh(5 (x - 0.7))``, which oscillates, bends and has an
      edge.
    - *Input.* 256 points, drawn uniformly. Each has the features x / 2.2 and ``sin(k pi x / 2.2), cos(k pi x / 2.2)``
      for k = 1 .. order; order 0 is x alone.
    - *Network.* ``Conv1x1(attention(Conv1x1(features)))``, 17 channels, no residual connection, no non-linearity but
      the attention's softmax. ``channel attention``: Restormer's with 1 head and biases, on the points as an unsorted
      16 x 16 map, so that neighbours carry no information. ``attention over a window``: ordinary attention over
      positions (``WindowNetwork``), on the points in ascending order. Variants with tokens exist only for channel
      attention. The widened control has more channels.
    - *Training.* Mean squared error, Adam 5e-3 (cosine to 0), 600 steps of 4 new sets of points.
    - *Metric.* Mean squared error on 16 held-out sets (seed 1), divided by the function's variance there: the best
      constant scores 1.

    Args:
        steps: training steps.
        variants: names of the variants to train.
        conditions: names of kind of attention and order of the features, from ``CONDITIONS``.
    """

    kind: ClassVar[str] = "function"
    title: ClassVar[str] = "A function of one number, approximated by attention alone"
    metric: ClassVar[Metric] = Metric("error", "relative error", error=True)

    def __init__(
        self, steps: int = 600, variants: Sequence[str] = tuple(VARIANTS), conditions: Sequence[str] = CONDITIONS
    ) -> None:
        self.steps, self.batch, self.rate = steps, 4, 5e-3
        self.variants, self.conditions = variants, conditions

    def config(self) -> dict[str, Any]:
        """Returns function, points and training settings."""
        return {
            "function": "sin 5x + x^2 / 5 + 0.4 tanh(5 (x - 0.7))",
            "bound": BOUND,
            "points": POINTS,
            "window": WINDOW,
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.rate,
        }

    def has(self, condition: str, variant: str) -> bool:
        """Returns whether the variant exists: tokens are rows of channel attention, so a window has none."""
        return condition.startswith(CHANNELS) or not VARIANTS[variant].tokens

    def network(self, condition: str, variant: str) -> nn.Module:
        """Builds the network of a variant for the condition's attention and features."""
        layout = Layout(1 + 2 * _order(condition), 1, kernel=1, width=17, heads=1)
        if condition.startswith(CHANNELS):
            return channel_network(layout, variant)
        return parameter_matched(
            lambda form, width, fewer_biases: WindowNetwork(layout, form, width, fewer_biases), layout, variant
        )

    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """Returns a function that draws new sets of points: features and function values."""
        # Offset, so that no training seed is that of the held-out points.
        generator = torch.Generator().manual_seed(1000 + seed)

        def draw() -> tuple[Tensor, Tensor]:
            x = points(condition, self.batch, generator)
            return features(x, _order(condition)), target_function(x)

        return draw

    def measure(self, condition: str, network: nn.Module) -> float:
        """Returns the mean squared error on held-out points over the function's variance there."""
        x = points(condition, 16, torch.Generator().manual_seed(1))
        target = target_function(x)
        return float((network(features(x, _order(condition))) - target).square().mean() / target.var())


class WindowNetwork(nn.Module):
    """``Conv1x1 -> attention over positions -> Conv1x1`` on points in a row.

    One head of softmax attention with scale 1 / sqrt(C); each position attends to the 9 positions around it, itself
    included (fewer at the ends). q, k, v and the output projection are 1x1 convolutions with biases. The value path is
    the library's, with g's depthwise convolution along the row (3 x 3 on a map of height 1).

    Args:
        layout: numbers of input and output channels.
        variant: variant of the value path, without tokens.
        width: C, channels of the attention.
        fewer_biases: see ``AttentionNetwork``.

    Shape:
        (B, in_channels, 1, N) -> (B, out_channels, 1, N).

    Raises:
        ConfigError: the variant has tokens, which exist only in channel attention.
    """

    def __init__(self, layout: Layout, variant: Variant, width: int, fewer_biases: bool) -> None:
        super().__init__()
        if variant.tokens:
            raise ConfigError(f"{variant.title}: tokens are rows of channel attention, not of one over positions")
        self.first = nn.Conv2d(layout.in_channels, width, 1, bias=not fewer_biases)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.branch = LinearBranch(width) if variant.branch else nn.Identity()
        self.value = NonlinearValue(width, variant.value)
        self.position = variant.position
        self.project_out = nn.Conv2d(width, width, 1, bias=not fewer_biases)
        self.last = nn.Conv2d(width, layout.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, 1, N) -> (B, out_channels, 1, N)."""
        q, k, v = self.branch(self.qkv(self.first(x))).chunk(3, dim=1)
        if self.position == "before":
            v = self.value(v)
        n = torch.arange(x.shape[-1])
        far = (n - n.unsqueeze(1)).abs() > WINDOW // 2
        # (B, C, 1, N) -> (B, N, C); logits are (B, N, N), -inf outside of the window.
        q, k, rows = (each.squeeze(2).transpose(1, 2) for each in (q, k, v))
        logits = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(far, -math.inf)
        out = (logits.softmax(-1) @ rows).transpose(1, 2).unsqueeze(2)
        if self.position == "after":
            out = self.value(out)
        projected: Tensor = self.last(self.project_out(out))
        return projected


def quick_options() -> dict[str, Any]:
    """Returns the arguments of a reduced experiment that takes about a minute."""
    return {"steps": 200, "conditions": [f"{kind}, order 2" for kind in (CHANNELS, POSITIONS)]}


def points(condition: str, n: int, generator: torch.Generator) -> Tensor:
    """Draws n sets of points: (n, 1, 16, 16) for channel attention, (n, 1, 1, 256) in ascending order for a window."""
    x = (2 * torch.rand(n, POINTS, generator=generator) - 1) * BOUND
    if condition.startswith(CHANNELS):
        side = math.isqrt(POINTS)
        return x.view(n, 1, side, side)
    return x.sort(-1).values.view(n, 1, 1, POINTS)


def features(x: Tensor, order: int) -> Tensor:
    """Returns the features of points, (n, 1, H, W) -> (n, 1 + 2 order, H, W)."""
    angles = [k * math.pi / BOUND * x for k in range(1, order + 1)]
    return torch.cat([x / BOUND, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)


def target_function(x: Tensor) -> Tensor:
    """Applies the function to approximate to every number in ``x``."""
    return (5 * x).sin() + x**2 / 5 + 0.4 * (5 * (x - 0.7)).tanh()


def _order(condition: str) -> int:
    return int(condition.rpartition(" ")[2])
