"""The state of a run, in memory and in its checkpoint."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...checkpoints.io import read_pickle
from ...errors import CheckpointError
from ...files import atomic_write
from .config import RecipeConfig, TrainConfig

VERSION = 1
"""Version of the checkpoint's format. A file of another version is refused."""
_KEYS = ("version", "state_dict", "average", "optimizer", "scaler", "step", "window", "history", "config", "legs")
_PREFIX = "net."


class State:
    """Everything that changes from step to step.

    Attributes:
        net: the network, on its device, without a wrapper.
        average: exponential moving average of its weights; None without.
        optimizer: AdamW over the parameters that are trained.
        scaler: scales the loss; enabled only for float16.
        step: optimiser steps done.
        window: losses since the last line of the history.
        history: lines of the history, plain data.
    """

    def __init__(self, net: nn.Module, recipe: RecipeConfig) -> None:
        self.net = net
        self.average = None
        if recipe.ema is not None:
            self.average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)).requires_grad_(False)
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        device = trained[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=recipe.precision == "16-mixed")
        self.step = 0
        self.window: list[float] = []
        self.history: list[dict[str, Any]] = []

    @property
    def result(self) -> nn.Module:
        """The network that training yields: the average, if there is one."""
        if self.average is None:
            return self.net
        averaged: nn.Module = self.average.module
        return averaged

    def as_dict(self) -> dict[str, Any]:
        """Returns the state as tensors and plain containers.

        The weights' names are those of a Lightning module that holds the network as ``net``.
        """
        return {
            "state_dict": {_PREFIX + name: tensor for name, tensor in self.net.state_dict().items()},
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "window": list(self.window),
            "history": deepcopy(self.history),
        }

    def restore(self, held: Mapping[str, Any]) -> None:
        """Restores the state that ``as_dict`` returned."""
        weights = OrderedDict((name.removeprefix(_PREFIX), each) for name, each in held["state_dict"].items())
        # The versions of its modules, without which some take the weights for those of their first version.
        weights._metadata = getattr(self.net.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
        self.net.load_state_dict(weights)
        if self.average is not None:
            self.average.load_state_dict(held["average"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.scaler.load_state_dict(held["scaler"])
        self.step, self.window, self.history = held["step"], list(held["window"]), deepcopy(held["history"])


def write_checkpoint(path: Path, state: State, config: TrainConfig, legs: list[dict[str, Any]]) -> None:
    """Writes a checkpoint atomically: an existing file stays until the new one is complete.

    Args:
        path: the file.
        state: state after a step.
        config: configuration of the run.
        legs: for each start and resume: after which step, and the ``circumstances``; plain data.

    Raises:
        OSError: if it cannot be written.
    """
    held = {"version": VERSION, **state.as_dict(), "config": config.as_dict(), "legs": legs}
    with atomic_write(path) as partial, partial.open("wb") as file:
        try:
            torch.save(held, file)
        except RuntimeError as error:
            # After a failed write, PyTorch closes its archive and raises the error of that instead.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        # On the disk before it replaces the old file: a power cut would lose what is still in the system's buffers.
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what ``write_checkpoint`` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: for any other file.
    """
    held = read_pickle(path)
    missing = [key for key in _KEYS if key not in held] if isinstance(held, dict) else list(_KEYS)
    if missing:
        raise CheckpointError(f"{path}: is no checkpoint of exda train (it lacks {missing[0]!r}); give another folder.")
    if held["version"] != VERSION:
        raise CheckpointError(f"{path}: is of version {held['version']!r}, this library reads {VERSION}.")
    return dict(held)
