"""Plans a run: checks and reports everything before anything is trained or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ...errors import ConfigError, some_of
from ...patching import new_parameters
from ...patching.backbones import known_multiple
from ..data import Checked, PairedSet, check
from ..shared.inference import inferring
from ..shared.packages import fabric
from ..shared.plotting import matplotlib_figure
from .build import Network, build
from .config import TrainConfig
from .data import Data, open_data
from .exactness import fingerprint, same_images
from .folder import Begun, Folder
from .lora import lora_parameters
from .lora_check import check_merging
from .order import pairs_in
from .stages import patches, stages_of
from .trackers import check_trackers

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Plan:
    """A run that can be started or resumed.

    Attributes:
        config: configuration of the run.
        folder: folder of its files.
        network: the network with which it begins.
        data: the opened data sets.
        steps: length in optimiser steps.
        accelerator: ``"cpu"`` or ``"gpu"``.
        devices: number of processes, each on its own device.
        begun: the run to resume; None for a new one.
        checked: summary of the images to train on.
    """

    config: TrainConfig
    folder: Folder
    network: Network
    data: Data
    steps: int
    accelerator: str
    devices: int
    begun: Begun | None
    checked: Checked

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.begun is not None and self.begun.step >= self.steps and self.folder.result.exists()

    @property
    def images(self) -> str:
        """Stamp that identifies the images to train on."""
        return self.checked.stamp

    def print(self, console: Console) -> None:
        """Prints the report of ``patch``, if there is one, and a table of the run."""
        if self.network.report is not None:
            self.network.report.print(console)
        table = Table("run", "", box=None, padding=(0, 2, 0, 0))
        for name, value in self._lines().items():
            table.add_row(name, value)
        console.print(table, markup=False, highlight=False)

    def _lines(self) -> dict[str, str]:
        config, recipe, data, net = self.config, self.config.recipe, self.config.data, self.network.net
        new = sum(each.numel() for each in (*new_parameters(net), *lora_parameters(net).values()))
        stages = stages_of(config, self.steps)
        together = [stage.batch * recipe.accumulate * self.devices for stage in stages]
        pairs = sum(pairs_in(stage, recipe.accumulate, self.devices) for stage in stages)
        begin = config.model.checkpoint or "random weights"
        what = data.benchmark or ", ".join(data.degradations) or "of two folders"
        epochs = pairs / len(self.data.training)
        validation = "none" if self.data.validation is None else f"{len(self.data.validation)} pairs, whole images"
        changes = [] if self.begun is None else [str(each) for each in (*self.begun.changes, *self.begun.moved)]
        passes = f" over {recipe.accumulate} passes" if recipe.accumulate > 1 else ""
        return {
            "network": f"{config.model.name}, {parameters(net):,} parameters, {new:,} of them new",
            "begins with": begin,
            **({"without LoRA": _with_reasons(self.network.left_out)} if self.network.left_out else {}),
            "trained": f"{parameters(net, trained=True):,} parameters ({recipe.train})",
            "data": f"{len(self.data.training):,} pairs per epoch, patches of {_span(s.patch for s in stages)}: {what}"
            + _left_out(self.data),
            "pictures": _described(self.checked, channels(net)),
            "validation": validation,
            "length": f"{self.steps:,} steps of {_span(together)} pairs{passes}, {epochs:.3g} epochs",
            **({"stages": "\n".join(map(str, stages))} if recipe.progressive else {}),
            "optimiser": f"AdamW, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}",
            "precision": recipe.precision,
            "devices": f"{self.devices} x {self.accelerator}",
            "folder": f"{self.folder.path}, "
            + ("new" if self.begun is None else f"goes on after step {self.begun.step}"),
            **({"logs to": ", ".join(recipe.log_to)} if recipe.log_to else {}),
            **({"changed": "; ".join(changes)} if changes else {}),
        }


def prepare(config: TrainConfig, out: Path, *, devices: int = 1, accelerator: str = "auto") -> Plan:
    """Builds the network, opens the data, and checks everything, including every image; writes nothing.

    Args:
        config: what to train, and how.
        out: folder of the run: a new one, or one with a run to resume.
        devices: number of GPUs, with a process for each; on the CPU, number of processes.
        accelerator: ``"cpu"``, ``"gpu"``, or ``"auto"`` for GPUs if there are any.

    Raises:
        ConfigError: for a configuration or device that is not possible, and for the folder of another run.
        CheckpointError, DataError, ImageError, NoMatchError, PatternError: for what cannot be read or does not fit.
        ExDAError: if packages of the extra ``train`` are not installed.
    """
    # Fails early if packages are missing: Matplotlib would be imported only after the last step.
    fabric()
    matplotlib_figure("train")
    check_trackers(config.recipe.log_to)
    folder = Folder(out)
    begun = folder.begun(config)
    where = _accelerator(accelerator, devices, config)
    network = build(config, folder.network(config))
    _check_patches(config, network.net)
    data = open_data(config, channels(network.net))
    checked = check(data.training)
    if data.validation is not None:
        check(data.validation)
    _check_channels(config, network.net, data)
    _check_forward(config, network.net)
    if config.lora is not None:
        check_merging(network.net, _image(config, network.net))
    if config.recipe.train == "new":
        _check_frozen(config, network.net)
    if begun is not None and begun.moved:
        # The images are in another place: compares them with those of the last leg.
        now = {"data": fingerprint(data.training), "pictures": checked.stamp}
        folder.refuse([] if same_images(begun.legs[-1], now) else begun.moved)
    steps = length(config, len(data.training), devices)
    return Plan(config, folder, network, data, steps, where, devices, begun, checked)


def parameters(net: nn.Module, *, trained: bool = False) -> int:
    """Counts the parameters of a network, or only those that are trained."""
    return sum(each.numel() for each in net.parameters() if each.requires_grad or not trained)


def channels(net: nn.Module) -> int:
    """Returns the number of channels of a network's input images, by its first convolution.

    Raises:
        ConfigError: if there is no convolution, or it takes neither 1 nor 3 channels.
    """
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels not in (1, 3):
        found = "no convolution" if first is None else f"{first.in_channels} channels"
        raise ConfigError(f"model: its input has {found}; networks of images with 1 or 3 channels can be trained.")
    return first.in_channels


def length(config: TrainConfig, pairs: int, devices: int) -> int:
    """Returns the length of the run in steps; epochs are rounded up, so the last step may use pairs of one more."""
    recipe = config.recipe
    if recipe.steps is not None:
        return recipe.steps
    # TrainConfig sees to both: with stages, whose batches differ, the length is in steps.
    assert recipe.epochs is not None
    assert recipe.batch is not None
    return -(-recipe.epochs * pairs // (recipe.batch * recipe.accumulate * devices))


def _check_patches(config: TrainConfig, net: nn.Module) -> None:
    multiple = known_multiple(net) or 1
    for key, patch in patches(config).items():
        if patch % multiple:
            raise ConfigError(f"{key}: found {patch}, {config.model.name} takes multiples of {multiple}.")


def _check_channels(config: TrainConfig, net: nn.Module, data: Data) -> None:
    for key, pairs in (("data.source", data.training), ("data.validation", data.validation)):
        if pairs is not None and (found := len(pairs[0].clean)) != channels(net):
            raise ConfigError(
                f"{key}: its images are read with {found} channels, {config.model.name} takes {channels(net)}."
            )


def _check_forward(config: TrainConfig, net: nn.Module) -> None:
    """Runs the network on one patch, since some wrong arguments show only in a forward pass."""
    sides = sorted(set(patches(config).values()))
    # Of a network whose multiple is known, the smallest patch shows as much as the others, and takes the least time.
    for side in sides if known_multiple(net) is None else sides[:1]:
        _check_side(config, net, side)


def _check_side(config: TrainConfig, net: nn.Module, side: int) -> None:
    shape = (1, channels(net), side, side)
    told = f"model: {config.model.name} with {config.model.arguments} and a patch of {side} pixels"
    try:
        with torch.random.fork_rng(devices=[]), inferring(net):
            found = net(torch.zeros(shape)).shape
    except Exception as error:
        # The arguments come from a file: a network may raise anything.
        raise ConfigError(f"{told} cannot compute ({type(error).__name__}: {' '.join(str(error).split())}).") from error
    if found != shape:
        raise ConfigError(f"{told} gives a shape of {tuple(found)}, expected that of the patch, {shape}.")


def _check_frozen(config: TrainConfig, net: nn.Module) -> None:
    """Checks that no buffer of a frozen host changes in train mode: the new parameters would fit no host there is."""
    copied = deepcopy(net)
    before = {name: buffer.clone() for name, buffer in _saved_buffers(copied).items()}
    if not before:
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        copied(_image(config, net).expand(2, -1, -1, -1))
    after = _saved_buffers(copied)
    moved = [name for name, buffer in before.items() if not torch.equal(buffer, after[name])]
    if moved:
        raise ConfigError(
            f"recipe.train: found 'new', which freezes the host, but {config.model.name} changes {some_of(moved)} in "
            f"train mode. Keep them as they are there, or train all."
        )


def _saved_buffers(net: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a checkpoint holds, so without caches such as masks of the last image's size."""
    names = {name for name, _ in net.named_buffers(remove_duplicate=False)}
    return {name: each for name, each in net.state_dict().items() if name in names}


def _image(config: TrainConfig, net: nn.Module) -> Tensor:
    """Returns a random image (1, C, H, W) that the network takes."""
    side, multiple = min(patches(config).values()), known_multiple(net)
    if multiple is not None:
        # Shows as much as a larger image, in less time.
        side = min(side, 4 * multiple)
    return torch.rand(1, channels(net), side, side, generator=torch.Generator().manual_seed(0))


def _with_reasons(left_out: Mapping[str, str]) -> str:
    return some_of([f"{name} ({reason})" for name, reason in left_out.items()])


def _span(numbers: Iterable[int]) -> str:
    """Returns the least and the greatest number as text: ``"128"``, or ``"128 to 384"``."""
    least, *_, greatest = sorted([*numbers] * 2)
    return f"{least}" if least == greatest else f"{least} to {greatest}"


def _described(checked: Checked, taken: int) -> str:
    lines = [f"{checked.images:,}, all readable; sides of {checked.smallest:,} to {checked.largest:,} pixels"]
    if taken == 3 and checked.grey:
        lines.append(f"grey ones, read as colour: {checked.grey:,}")
    if taken == 1 and checked.grey < checked.images:
        lines.append(f"colour ones, read as grey: {checked.images - checked.grey:,}")
    if checked.deep:
        lines.append(f"with 16 bits per channel, of which the upper 8 are read: {checked.deep:,}")
    return "; ".join(lines)


def _left_out(data: Data) -> str:
    """Names the files that are no images, for the table; only sets of clean images record them."""
    sets = [each for each in (data.training, data.validation) if isinstance(each, PairedSet)]
    # Once each: images that are held out come from the same source.
    names = list(dict.fromkeys(name for each in sets for name in each.images.left_out))
    return f"; no images, left out: {some_of(names)}" if names else ""


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
