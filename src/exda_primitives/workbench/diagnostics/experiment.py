"""Base class of the experiments: a grid of conditions, variants and seeds, and the training of a network."""

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
    """The metric that an experiment measures on held-out data.

    Attributes:
        name: key of its value in a run.
        title: title in tables, with the unit.
        error: True if smaller is better and variants are compared by ratio; False if larger is better and they are
            compared by difference.
    """

    name: str
    title: str
    error: bool


@dataclass(frozen=True)
class Run:
    """One network to train: its condition, the variant of its value path, and its seed."""

    condition: str
    variant: str
    seed: int


class Experiment(ABC):
    """Base class of the diagnostic experiments."""

    kind: ClassVar[str]
    """Kind of the result file."""
    title: ClassVar[str]
    metric: ClassVar[Metric]

    steps: int
    """Training steps."""
    batch: int
    """Items per step."""
    rate: float
    """Learning rate at the first step."""
    conditions: Sequence[str]
    """Names of the conditions; every variant is trained under each."""
    variants: Sequence[str]
    """Names of the variants to train, keys of ``VARIANTS``."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns the configuration that all runs of a file share, as plain data."""

    @abstractmethod
    def network(self, condition: str, variant: str) -> nn.Module:
        """Builds a network, initialised from PyTorch's global generator."""

    @abstractmethod
    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """Returns a function that draws the next batch of inputs and targets; every variant gets the same batches."""

    @abstractmethod
    def measure(self, condition: str, network: nn.Module) -> float:
        """Returns the metric on the held-out data, which is the same for every variant and seed."""

    def has(self, condition: str, variant: str) -> bool:
        """Returns whether the variant exists under the condition."""
        return True

    def cost(self, condition: str) -> float:
        """Returns the relative time of a run, for the progress bar."""
        return 1

    def train(self, run: Run, on_step: OnStep = lambda _: None) -> dict[str, Any]:
        """Trains one network: Adam, cosine schedule from ``rate`` to 0 over ``steps``, mean squared error.

        Args:
            run: what to train. Its seed decides the initial weights and the batches.
            on_step: called with the number of each step when it is done.

        Returns:
            The run's row in the result file.

        Raises:
            ExDAError: the loss is not a finite number.
        """
        # A run leaves the caller's random numbers as they are.
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
