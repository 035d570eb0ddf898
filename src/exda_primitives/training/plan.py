"""What a run is going to be: checked, and said, before anything is computed or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ..data import PairedSet
from ..errors import ConfigError, some_of
from ..patching import new_parameters
from ..patching.table import print_report
from ..plotting import matplotlib_figure
from ..restoration.network import known_multiple
from .build import Network, build
from .config import TrainConfig
from .data import Data, open_data
from .extra import fabric
from .folder import Folder
from .lora import lora_parameters

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Plan:
    """A run that can be begun, or gone on with.

    Attributes:
        config: what it was told.
        folder: where its files are.
        network: as it begins.
        data: opened.
        steps: its length.
        accelerator: ``"cpu"`` or ``"gpu"``.
        devices: processes, each on a device of its own.
        held: the checkpoint to go on from, or None.
    """

    config: TrainConfig
    folder: Folder
    network: Network
    data: Data
    steps: int
    accelerator: str
    devices: int
    held: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.held is not None and self.held["step"] >= self.steps and self.folder.result.exists()

    def print(self, console: Console) -> None:
        """The report of what was patched in, and a table of the rest."""
        if self.network.report is not None:
            print_report(self.network.report, console)
        table = Table("run", "", box=None, padding=(0, 2, 0, 0))
        for name, value in self._lines().items():
            table.add_row(name, value)
        console.print(table, markup=False, highlight=False)

    def _lines(self) -> dict[str, str]:
        config, recipe, data, net = self.config, self.config.recipe, self.config.data, self.network.net
        new = sum(each.numel() for each in (*new_parameters(net), *lora_parameters(net).values()))
        together = recipe.batch * recipe.accumulate * self.devices
        begin = config.model.checkpoint or "random weights"
        what = data.benchmark or ", ".join(data.degradations)
        epochs = self.steps * together / len(self.data.training)
        validation = "none" if self.data.validation is None else f"{len(self.data.validation)} pairs, whole pictures"
        passes = f" over {recipe.accumulate} passes" if recipe.accumulate > 1 else ""
        return {
            "network": f"{config.model.name}, {parameters(net):,} parameters, {new:,} of them new",
            "begins with": begin,
            "trained": f"{parameters(net, trained=True):,} parameters ({recipe.train})",
            "data": f"{len(self.data.training):,} pairs an epoch, patches of {data.patch}: {what}"
            + _left_out(self.data),
            "validation": validation,
            "length": f"{self.steps:,} steps of {together} pairs{passes}, {epochs:.3g} epochs",
            "optimiser": f"AdamW, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}",
            "precision": recipe.precision,
            "devices": f"{self.devices} x {self.accelerator}",
            "folder": f"{self.folder.path}, "
            + ("new" if self.held is None else f"goes on after step {self.held['step']}"),
        }


def prepare(config: TrainConfig, out: Path, *, devices: int = 1, accelerator: str = "auto") -> Plan:
    """Builds, opens and checks everything; writes nothing.

    Args:
        config: what to train, and how.
        out: folder of the run: new, or one to go on with.
        devices: processes, each on a device of its own; on the CPU, that many processes.
        accelerator: ``"auto"`` takes GPUs where there are any, ``"cpu"`` or ``"gpu"``.

    Raises:
        ConfigError: for a configuration or a device that cannot be, and a folder of another run.
        CheckpointError, DataError, ImageError, NoMatchError, PatternError: for what cannot be read or does not fit.
        ExDAError: where packages of the extra ``train`` are missing.
    """
    fabric()
    matplotlib_figure("train")
    folder = Folder(out)
    held = folder.begun(config)
    where = _accelerator(accelerator, devices, config)
    network = build(config)
    _check_patch(config, network.net)
    data = open_data(config, channels(network.net))
    return Plan(config, folder, network, data, length(config, len(data.training), devices), where, devices, held)


def parameters(net: nn.Module, *, trained: bool = False) -> int:
    """How many numbers a network has, or those alone that are trained."""
    return sum(each.numel() for each in net.parameters() if each.requires_grad or not trained)


def channels(net: nn.Module) -> int:
    """Of the pictures that a network takes: those of its first convolution.

    Raises:
        ConfigError: if these are neither 1 nor 3.
    """
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels not in (1, 3):
        found = "no convolution" if first is None else f"{first.in_channels} channels"
        raise ConfigError(f"model: its input has {found}; networks of pictures with 1 or 3 channels can be trained.")
    return first.in_channels


def length(config: TrainConfig, pairs: int, devices: int) -> int:
    """Of the run in steps; the last step of the last epoch goes on into the next."""
    recipe = config.recipe
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None
    return -(-recipe.epochs * pairs // (recipe.batch * recipe.accumulate * devices))


def _check_patch(config: TrainConfig, net: nn.Module) -> None:
    patch, multiple = config.data.patch, known_multiple(net) or 1
    if patch % multiple:
        raise ConfigError(f"data.patch: found {patch}, {config.model.name} takes multiples of {multiple}.")


def _left_out(data: Data) -> str:
    """Files that are no pictures; of a benchmark there are none."""
    sets = [each for each in (data.training, data.validation) if isinstance(each, PairedSet)]
    names = [name for each in sets for name in each.pictures.left_out]
    return f"; no pictures, left out: {some_of(names)}" if names else ""


def _accelerator(asked: str, devices: int, config: TrainConfig) -> str:
    if asked not in ACCELERATORS:
        raise ConfigError(f"accelerator: found {asked!r}, expected one of {', '.join(ACCELERATORS)}.")
    if devices < 1:
        raise ConfigError(f"devices: found {devices}, expected at least 1.")
    if torch.distributed.is_torchelastic_launched():
        raise ConfigError("exda train starts its processes itself: run it once, without torchrun, with --devices.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = ("gpu" if there else "cpu") if asked == "auto" else asked
    if found == "gpu" and devices > there:
        raise ConfigError(f"devices: asked for {devices} GPUs, PyTorch finds {there}.")
    if found == "cpu" and config.recipe.precision == "16-mixed":
        raise ConfigError("recipe.precision: '16-mixed' is for GPUs; on a CPU take '32-true' or 'bf16-mixed'.")
    return found
