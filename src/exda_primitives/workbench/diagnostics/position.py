"""Synthetic tasks that need a non-linearity before the aggregation, or after it, or do not care."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...primitives import ExDAAttention
from .experiment import Experiment, Metric
from .variants import ChannelNetwork, Layout, channel_network

CHANNELS, WIDTH, SIZE, GROUPS, TEMPERATURE, HELD_OUT = 6, 12, 8, 2, 5.0, 512
NOISE = 4.0
"""Well into both arms of a GELU: at a quarter of it the place shows less, since a ReLU then takes long to learn."""
LAYOUT = Layout(in_channels=CHANNELS, out_channels=CHANNELS, kernel=1, width=WIDTH, heads=1)
FIXED, OWN = "fixed mixture", "each image's own mixture"
TASKS = (
    f"{OWN} of transformed channels",
    f"{OWN}, then transformed",
    f"{FIXED} of transformed channels",
    f"{FIXED}, then transformed",
)
SHOWN = ("linear", "widened", "residual", "replace", "gelu", "after", "replace-after")
"""The variants that are trained unless others are asked for."""


class PositionExperiment(Experiment):
    """Mixtures of channels, with a ReLU before or after the mixing.

    That only a non-linear value *before* the aggregation leaves the span of a linear attention is a claim about the
    place. These tasks ask for the place directly; all of this is ours:

    - *Input.* (6, 8, 8). Each channel of each image belongs to one of two groups, drawn anew for every image. The
      upper four rows tell which channels belong together: normal noise, sigma 8, that a group shares. The lower four
      rows are what is mixed: normal noise, sigma 4, of each channel its own.
    - *Mixture.* Rows of non-negative weights that sum to 1. ``each image's own mixture``: A = softmax(5 c), c the
      cosines between the image's channels, i.e. what a channel attention computes: a channel is averaged with those of
      its group, which only an attention can do. ``fixed mixture``: one A for all images (the softmax of normal numbers
      times 2, seed 2), which a 1x1 convolution can do.
    - *Target*, on the lower four rows: ``A relu(x)`` (transformed, then mixed) or ``relu(A x)`` (mixed, then
      transformed).
    - *Network.* ``Conv1x1(attention(Conv1x1(x)))``, 6 -> 12 -> 6 channels with biases; Restormer's channel attention
      with 1 head and biases, nothing added to its output. The widened control has more channels. The host layers
      start as the mixture (``aim``), so that the value path is compared and not whether the mixture is found;
      everything is trained.
    - *Training.* Mean squared error, Adam 2e-2 (cosine to 0), 700 steps, batches of 16 new images.
    - *Metric.* Mean squared error on 512 held-out images (seed 1) over the variance of their targets: 1 is what the
      best constant gets.

    Args:
        steps: of training.
        variants: names of those to train.
        conditions: names of the tasks.
    """

    kind: ClassVar[str] = "position"
    title: ClassVar[str] = "Where the non-linearity has to be: before or after the aggregation"
    metric: ClassVar[Metric] = Metric("error", "relative error", error=True)

    def __init__(self, steps: int = 700, variants: Sequence[str] = SHOWN, conditions: Sequence[str] = TASKS) -> None:
        self.steps, self.batch, self.rate = steps, 16, 2e-2
        self.variants, self.conditions = variants, conditions
        self.held_out = images(HELD_OUT, torch.Generator().manual_seed(1))

    def config(self) -> dict[str, Any]:
        """See the base class."""
        return {
            "channels": CHANNELS,
            "width": WIDTH,
            "size": SIZE,
            "groups": GROUPS,
            "noise": NOISE,
            "temperature": TEMPERATURE,
            "held_out_images": HELD_OUT,
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.rate,
        }

    def network(self, condition: str, variant: str) -> nn.Module:
        """See the base class."""
        network = channel_network(LAYOUT, variant)
        assert isinstance(network, ChannelNetwork)
        aim(network)
        return nn.Sequential(network, LowerHalf())

    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """See the base class."""
        # None of the training's generators is that of the held-out images.
        generator = torch.Generator().manual_seed(1000 + seed)

        def draw() -> tuple[Tensor, Tensor]:
            inputs = images(self.batch, generator)
            return inputs, target(condition, inputs)

        return draw

    def measure(self, condition: str, network: nn.Module) -> float:
        """See the base class."""
        wanted = target(condition, self.held_out)
        return float((network(self.held_out) - wanted).square().mean() / wanted.var())


class LowerHalf(nn.Module):
    """The lower half of a map's rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W)."""
        return x[:, :, x.shape[2] // 2 :]


def quick_options() -> dict[str, Any]:
    """Of the experiment's form that takes about a minute."""
    return {"steps": 250, "conditions": TASKS[:2]}


def images(n: int, generator: torch.Generator) -> Tensor:
    """(n, 6, 8, 8): above what channels of a group share, below what each has for itself."""
    shared = 2 * NOISE * torch.randn(n, GROUPS, SIZE // 2, SIZE, generator=generator)
    groups = torch.randint(GROUPS, (n, CHANNELS), generator=generator)
    own = NOISE * torch.randn(n, CHANNELS, SIZE // 2, SIZE, generator=generator)
    return torch.cat((shared[torch.arange(n).unsqueeze(1), groups], own), dim=2)


def target(task: str, x: Tensor) -> Tensor:
    """What the network is to give for ``x``: (n, 6, 8, 8) -> (n, 6, 4, 8)."""
    directions = F.normalize(x.flatten(2), dim=-1)
    logits = TEMPERATURE * directions @ directions.transpose(-2, -1)
    if task.startswith(FIXED):
        logits = 2 * torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(2))
    weights, mixed = logits.softmax(-1), LowerHalf()(x).flatten(2)
    after = task.endswith("then transformed")
    mixed = (weights @ mixed).relu() if after else weights @ mixed.relu()
    return mixed.unflatten(2, (SIZE // 2, SIZE))


@torch.no_grad()
def aim(network: ChannelNetwork) -> None:
    """Lets the network start as each image's own mixture ``A x``: what is left to learn is the transformation.

    All host layers hand the channels on, as often as there is room in the attention, and the temperature is the
    tasks'. g starts as PyTorch initialises it.
    """
    (attention,) = network.attentions
    assert isinstance(attention, ExDAAttention)
    depthwise = attention.part("qkv_dwconv")
    if isinstance(depthwise, nn.Sequential):
        depthwise = depthwise[0]
    depthwise.weight.zero_()
    depthwise.weight[:, :, 1, 1] = 1
    mixing = (network.first, attention.part("qkv"), attention.part("project_out"), network.last)
    for layer in mixing:
        outputs, inputs = layer.weight.shape[:2]
        layer.weight.zero_()
        layer.weight[torch.arange(outputs), torch.arange(outputs) % inputs] = 1
    for layer in (*mixing, depthwise):
        if layer.bias is not None:
            layer.bias.zero_()
    attention.temperature.fill_(TEMPERATURE)
