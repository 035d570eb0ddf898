"""A function of one number, approximated by attention alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...primitives import NonlinearValue
from .experiment import Experiment, Metric
from .variants import VARIANTS, Layout, LinearBranch, Variant, channel_network, sized

BOUND, POINTS, WINDOW = 2.2, 256, 9
CHANNELS, POSITIONS = "channel attention", "attention over a window"
ORDERS = (0, 2, 4)
CONDITIONS = tuple(f"{kind}, order {order}" for kind in (CHANNELS, POSITIONS) for order in ORDERS)


class FunctionExperiment(Experiment):
    """Approximation of a 1-D function on [-2.2, 2.2], as the paper's first diagnostic.

    The paper (linear values 50.4% worse than non-linear ones) gives neither function nor architecture. These are ours:

    - *Function* (``wanted``): ``sin 5x + x^2 / 5 + 0.4 tanh(5 (x - 0.7))``, which oscillates, bends and has an
      edge.
    - *Input.* 256 points, drawn uniformly; of each the features x / 2.2 and ``sin(k pi x / 2.2), cos(k pi x / 2.2)``
      for k = 1 .. order. Order 0 is x alone.
    - *Network.* ``Conv1x1(attention(Conv1x1(features)))``, 17 channels, nothing added to the attention's output, no
      other non-linearity than its softmax. ``channel attention``: Restormer's with 1 head and biases, on the points as
      a 16 x 16 map, unsorted, so that neighbours tell nothing. ``attention over a window``: the usual one over
      positions, see ``WindowNetwork``, on the points in ascending order. Variants with tokens exist for the first
      alone. The widened control has more channels.
    - *Training.* Mean squared error, Adam 5e-3 (cosine to 0), 600 steps of 4 new sets of points.
    - *Metric.* Mean squared error on 16 held-out sets (seed 1) over the variance of the function there: 1 is what the
      best constant gets.

    Args:
        steps: of training.
        variants: names of those to train.
        conditions: kinds of attention and orders of the features.
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
        """See the base class."""
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
        """Tokens are rows of channel attention alone."""
        return condition.startswith(CHANNELS) or not VARIANTS[variant].tokens

    def network(self, condition: str, variant: str) -> nn.Module:
        """See the base class."""
        layout = Layout(1 + 2 * _order(condition), 1, kernel=1, width=17, heads=1)
        if condition.startswith(CHANNELS):
            return channel_network(layout, variant)
        return sized(lambda form, width, lean: WindowNetwork(layout, form, width, lean), layout, variant)

    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """See the base class."""
        # None of the training's generators is that of the held-out points.
        generator = torch.Generator().manual_seed(1000 + seed)

        def draw() -> tuple[Tensor, Tensor]:
            x = points(condition, self.batch, generator)
            return features(x, _order(condition)), wanted(x)

        return draw

    def measure(self, condition: str, network: nn.Module) -> float:
        """See the base class."""
        x = points(condition, 16, torch.Generator().manual_seed(1))
        return float((network(features(x, _order(condition))) - wanted(x)).square().mean() / wanted(x).var())


class WindowNetwork(nn.Module):
    """``Conv1x1 -> attention over positions -> Conv1x1`` on points in a row.

    One head of softmax attention with scale 1 / sqrt(C), in which every position sees the 9 around it (fewer at the
    ends); q, k, v and the output projection are 1x1 convolutions with biases. The value's forms are the library's,
    with g's depthwise convolution over the row (3 x 3 on a map of height 1).

    Args:
        layout: its channels.
        variant: of the value path, without tokens.
        width: C.
        lean: see ``ChannelNetwork``.

    Shape:
        (B, in_channels, 1, N) -> (B, out_channels, 1, N).

    Raises:
        ConfigError: for a variant with tokens, which are rows of channel attention.
    """

    def __init__(self, layout: Layout, variant: Variant, width: int, lean: bool) -> None:
        super().__init__()
        if variant.tokens:
            raise ConfigError(f"{variant.title}: tokens are rows of channel attention, not of one over positions")
        self.first = nn.Conv2d(layout.in_channels, width, 1, bias=not lean)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.branch = LinearBranch(width) if variant.branch else nn.Identity()
        self.value = NonlinearValue(width, variant.value)
        self.position = variant.position
        self.project_out = nn.Conv2d(width, width, 1, bias=not lean)
        self.last = nn.Conv2d(width, layout.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, 1, N) -> (B, out_channels, 1, N)."""
        q, k, v = self.branch(self.qkv(self.first(x))).chunk(3, dim=1)
        if self.position == "before":
            v = self.value(v)
        n = torch.arange(x.shape[-1])
        far = (n - n.unsqueeze(1)).abs() > WINDOW // 2
        q, k, rows = (each.squeeze(2).transpose(1, 2) for each in (q, k, v))
        logits = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(far, -math.inf)
        out = (logits.softmax(-1) @ rows).transpose(1, 2).unsqueeze(2)
        if self.position == "after":
            out = self.value(out)
        projected: Tensor = self.last(self.project_out(out))
        return projected


def quick_options() -> dict[str, Any]:
    """Of the experiment's form that takes about a minute."""
    return {"steps": 200, "conditions": [f"{kind}, order 2" for kind in (CHANNELS, POSITIONS)]}


def points(condition: str, n: int, generator: torch.Generator) -> Tensor:
    """Sets of points: (n, 1, 16, 16) for channel attention, (n, 1, 1, 256) in ascending order for a window."""
    x = (2 * torch.rand(n, POINTS, generator=generator) - 1) * BOUND
    if condition.startswith(CHANNELS):
        side = math.isqrt(POINTS)
        return x.view(n, 1, side, side)
    return x.sort(-1).values.view(n, 1, 1, POINTS)


def features(x: Tensor, order: int) -> Tensor:
    """(n, 1, H, W) -> (n, 1 + 2 order, H, W)."""
    angles = [k * math.pi / BOUND * x for k in range(1, order + 1)]
    return torch.cat([x / BOUND, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)


def wanted(x: Tensor) -> Tensor:
    """The function to approximate, of every number in ``x``."""
    return (5 * x).sin() + x**2 / 5 + 0.4 * (5 * (x - 0.7)).tanh()


def _order(condition: str) -> int:
    return int(condition.rpartition(" ")[2])
