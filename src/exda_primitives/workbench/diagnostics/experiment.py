"""What the experiments have in common: a grid of conditions, variants and seeds, and how a network is trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ExDAError
from .variants import parameters

OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Metric:
    """What is measured on held-out data.

    Attributes:
        name: key in a run.
        title: for tables, with the unit.
        error: smaller is better, and ratios are compared; else larger is better, and differences are.
    """

    name: str
    title: str
    error: bool


@dataclass(frozen=True)
class Run:
    """One network to train: under which condition, with which form of the value, from which seed."""

    condition: str
    variant: str
    seed: int


class Experiment(ABC):
    """One of the diagnostics."""

    kind: ClassVar[str]
    """Of the result file."""
    title: ClassVar[str]
    metric: ClassVar[Metric]

    steps: int
    batch: int
    rate: float
    conditions: Sequence[str]
    """Under which every variant is trained."""
    variants: Sequence[str]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that the runs of a file share, plain data."""

    @abstractmethod
    def network(self, condition: str, variant: str) -> nn.Module:
        """A fresh network, initialised from PyTorch's global generator."""

    @abstractmethod
    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """A function that draws the next batch of inputs and targets; the same ones for every variant."""

    @abstractmethod
    def measure(self, condition: str, network: nn.Module) -> float:
        """The metric on the held-out data, which is the same for every variant and seed."""

    def has(self, condition: str, variant: str) -> bool:
        """Whether there is such a variant under the condition."""
        return True

    def cost(self, condition: str) -> float:
        """How long a run takes, relative to others, for the time that remains."""
        return 1

    def train(self, run: Run, on_step: OnStep = lambda _: None) -> dict[str, Any]:
        """Trains one network: Adam, cosine from ``rate`` to 0 over ``steps``, mean squared error.

        Args:
            run: what to train. The seed decides the network's start and the order of the batches.
            on_step: called with the number of each step when it is done.

        Returns:
            The run's row in the result file.

        Raises:
            ExDAError: for a loss that is not a finite number.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            network = self.network(run.condition, run.variant)
        draw = self.batches(run.condition, run.seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        loss = math.nan
        for step in range(1, self.steps + 1):
            inputs, targets = draw()
            error = F.mse_loss(network(inputs), targets)
            loss = error.item()
            if not math.isfinite(loss):
                raise ExDAError(f"{self.kind}: the loss of {run} is {loss} in step {step}; lower the learning rate")
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            schedule.step()
            on_step(step)
        with torch.no_grad():
            found = self.measure(run.condition, network)
        return {
            "condition": run.condition,
            "variant": run.variant,
            "seed": run.seed,
            "parameters": parameters(network),
            "training_loss": loss,
            self.metric.name: found,
        }
