"""Synthetic tasks that tell whether the non-linearity has to be before or after the aggregation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...primitives import ExDAAttention
from .experiment import Experiment, Metric
from .variants import AttentionNetwork, Layout, channel_network

CHANNELS, WIDTH, SIZE, GROUPS, TEMPERATURE, HELD_OUT = 6, 12, 8, 2, 5.0, 512
NOISE = 4.0
"""Standard deviation of the mixed channels. Large, to reach both arms of a GELU: at a quarter of it, a ReLU takes long
to learn and the position of the non-linearity shows less."""

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
    """Learns mixtures of channels, with a ReLU before or after the mixing.

    The paper claims that only a non-linear value *before* the aggregation leaves the span of a linear attention. These
    tasks test the position directly. All of this is ours:

    - *Input.* (6, 8, 8). Each channel of each image belongs to one of two groups, drawn anew for every image. The
      upper four rows show which channels belong together: normal noise, sigma 8, shared within a group. The lower four
      rows are mixed: normal noise, sigma 4, independent for each channel.
    - *Mixture.* A matrix A of non-negative weights whose rows sum to 1. ``each image's own mixture``: A = softmax(5 c)
      with c the cosines between the image's channels, as a channel attention computes it. It averages a channel with
      those of its group, which only an attention can do. ``fixed mixture``: the same A for all images (the softmax of
      normal numbers times 2, seed 2), which a 1x1 convolution can do.
    - *Target*, on the lower four rows: ``A relu(x)`` (transformed, then mixed) or ``relu(A x)`` (mixed, then
      transformed).
    - *Network.* ``Conv1x1(attention(Conv1x1(x)))``, 6 -> 12 -> 6 channels with biases; Restormer's channel attention
      with 1 head and biases, no residual connection. The widened control has more channels. The host layers start as
      the mixture (``initialise_as_mixture``), so that the comparison is about the value path, not about finding the
      mixture; everything is trained.
    - *Training.* Mean squared error, Adam 2e-2 (cosine to 0), 700 steps, batches of 16 new images.
    - *Metric.* Mean squared error on 512 held-out images (seed 1), divided by the variance of their targets: the best
      constant scores 1.

    Args:
        steps: training steps.
        variants: names of the variants to train.
        conditions: names of the tasks, from ``TASKS``.
    """

    kind: ClassVar[str] = "position"
    title: ClassVar[str] = "Where the non-linearity has to be: before or after the aggregation"
    metric: ClassVar[Metric] = Metric("error", "relative error", error=True)

    def __init__(self, steps: int = 700, variants: Sequence[str] = SHOWN, conditions: Sequence[str] = TASKS) -> None:
        self.steps, self.batch, self.rate = steps, 16, 2e-2
        self.variants, self.conditions = variants, conditions
        self.held_out = images(HELD_OUT, torch.Generator().manual_seed(1))

    def config(self) -> dict[str, Any]:
        """Returns input, mixture and training settings."""
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
        """Builds the network of a variant, initialised as the mixture; its output is the lower half of the rows."""
        network = channel_network(LAYOUT, variant)
        assert isinstance(network, AttentionNetwork)
        initialise_as_mixture(network)
        return nn.Sequential(network, LowerHalf())

    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """Returns a function that draws new images and their targets."""
        # Offset, so that no training seed is that of the held-out images.
        generator = torch.Generator().manual_seed(1000 + seed)

        def draw() -> tuple[Tensor, Tensor]:
            inputs = images(self.batch, generator)
            return inputs, target(condition, inputs)

        return draw

    def measure(self, condition: str, network: nn.Module) -> float:
        """Returns the mean squared error on held-out images over the variance of their targets."""
        wanted = target(condition, self.held_out)
        return float((network(self.held_out) - wanted).square().mean() / wanted.var())


class LowerHalf(nn.Module):
    """Returns the lower half of a map's rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W)."""
        return x[:, :, x.shape[2] // 2 :]


def quick_options() -> dict[str, Any]:
    """Returns the arguments of a reduced experiment that takes about a minute."""
    return {"steps": 250, "conditions": TASKS[:2]}


def images(n: int, generator: torch.Generator) -> Tensor:
    """Draws images, (n, 6, 8, 8): upper rows shared by the channels of a group, lower rows independent."""
    shared = 2 * NOISE * torch.randn(n, GROUPS, SIZE // 2, SIZE, generator=generator)
    groups = torch.randint(GROUPS, (n, CHANNELS), generator=generator)
    own = NOISE * torch.randn(n, CHANNELS, SIZE // 2, SIZE, generator=generator)
    return torch.cat((shared[torch.arange(n).unsqueeze(1), groups], own), dim=2)


def target(task: str, x: Tensor) -> Tensor:
    """Returns the targets for images ``x``: (n, 6, 8, 8) -> (n, 6, 4, 8)."""
    # A = softmax(5 c), with c the cosines between channels over all pixels.
    directions = F.normalize(x.flatten(2), dim=-1)
    logits = TEMPERATURE * directions @ directions.transpose(-2, -1)  # (n, 6, 6)
    if task.startswith(FIXED):
        logits = 2 * torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(2))
    weights, mixed = logits.softmax(-1), LowerHalf()(x).flatten(2)
    after = task.endswith("then transformed")
    mixed = (weights @ mixed).relu() if after else weights @ mixed.relu()
    return mixed.unflatten(2, (SIZE // 2, SIZE))


@torch.no_grad()
def initialise_as_mixture(network: AttentionNetwork) -> None:
    """Initialises the network as each image's own mixture ``A x``, so that only the transformation is left to learn.

    Every host layer passes the channels on unchanged, repeated as often as they fit into the attention's width, and
    the temperature is that of the tasks. g keeps PyTorch's initialisation.
    """
    (attention,) = network.attentions
    assert isinstance(attention, ExDAAttention)
    depthwise = attention.part("qkv_dwconv")
    if isinstance(depthwise, nn.Sequential):
        depthwise = depthwise[0]
    # The identity as a 3 x 3 kernel: 1 in the middle, else 0.
    depthwise.weight.zero_()
    depthwise.weight[:, :, 1, 1] = 1
    mixing = (network.first, attention.part("qkv"), attention.part("project_out"), network.last)
    for layer in mixing:
        outputs, inputs = layer.weight.shape[:2]
        layer.weight.zero_()
        # Output channel i copies input channel i modulo their number.
        layer.weight[torch.arange(outputs), torch.arange(outputs) % inputs] = 1
    for layer in (*mixing, depthwise):
        if layer.bias is not None:
            layer.bias.zero_()
    attention.temperature.fill_(TEMPERATURE)
