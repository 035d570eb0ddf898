"""The recipe of the demo's weights: settings, images, batches, and the training of one phase."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from machine import machine
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TextColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.model import tiny_restormer

BATCH = 4
PATCH = 64
PEAK_LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 1.0
HOLD_OUT_EVERY = 8
LOG_EVERY = 250

console = Console()


class Phase(str, Enum):
    """The phases of a run, in their order."""

    PRETRAIN = "pretrain"
    HOST = "host"
    EXDA = "exda"
    REPORT = "report"


class Stream(int, Enum):
    """Streams of random numbers. Both arms draw from FURTHER, so that they train on the same patches."""

    WEIGHTS = 0
    PRETRAIN = 1
    FURTHER = 2
    EVALUATE = 3


@dataclass(frozen=True)
class Record:
    """How a checkpoint was made.

    Attributes:
        phase: name of the phase.
        steps: optimiser steps.
        seed: the run's seed.
        data_sha256: SHA-256 of the zip of images.
        start_sha256: SHA-256 of the checkpoint that the phase started from; empty for the first phase.
        parameters: number of parameters.
        seconds: wall time of the training alone.
        last_loss: mean L1 loss over the last logged steps.
        device: torch device.
        machine: the machine and versions at the start of the training.
    """

    phase: str
    steps: int
    seed: int
    data_sha256: str
    start_sha256: str
    parameters: int
    seconds: float
    last_loss: float
    device: str
    machine: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What every phase needs.

    Attributes:
        out: folder of the checkpoints and records.
        seed: seed of all random numbers.
        device: where the networks are trained and measured.
        data_sha256: SHA-256 of the zip of images.
        train: training crops (N, 3, H, W) uint8.
    """

    out: Path
    seed: int
    device: torch.device
    data_sha256: str
    train: Tensor

    def generator(self, stream: Stream, step: int) -> torch.Generator:
        """Returns a fresh generator for one step, so that no step depends on what was drawn before it."""
        # Hashed to 32 bits: PyTorch's CPU generator uses only the low 32 bits of a seed.
        words = np.random.SeedSequence([self.seed, stream, step]).generate_state(1, np.uint32)
        return torch.Generator().manual_seed(int(words[0]))

    def checkpoint(self, phase: Phase) -> Path:
        return self.out / f"{phase.value}.safetensors"

    def record(self, phase: Phase) -> Record:
        return Record(**json.loads(self.checkpoint(phase).with_suffix(".json").read_text()))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def photo_of(name: str) -> str:
    """Returns the photograph that a crop comes from: ``0014_world_hedgehog.jpg`` gives ``world_hedgehog``."""
    return Path(name).stem.partition("_")[2]


def read_images(path: Path) -> tuple[Tensor, list[str], Tensor, list[str]]:
    """Reads a zip of crops of one size and splits it by photograph: every eighth, by name, is held out.

    Args:
        path: a zip of ``<number>_<photograph>.jpg`` or ``.png`` files.

    Returns:
        Training crops (N, 3, H, W) uint8, their names, held-out crops, their names.

    Raises:
        typer.BadParameter: if the zip has too few photographs to hold one out.
    """
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".jpg", ".png")))
        held_out = set(sorted({photo_of(name) for name in names})[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY])
        if not held_out:
            raise typer.BadParameter(f"{path} has fewer than {HOLD_OUT_EVERY} photographs")

        def stack(chosen: Sequence[str]) -> Tensor:
            images = (Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen)
            return torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)

        training = [name for name in names if photo_of(name) not in held_out]
        testing = [name for name in names if photo_of(name) in held_out]
        return stack(training), training, stack(testing), testing


def draw_batch(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Picks, flips, degrades and crops images.

    Crops come last, so that haze varies over a patch as slowly as over a whole image.

    Args:
        images: (N, 3, H, W) uint8.
        generator: source of all random choices.

    Returns:
        Degraded and clean patches, both (BATCH, 3, PATCH, PATCH) in [0, 1].
    """

    def integers(below: int) -> list[int]:
        return torch.randint(below, (BATCH,), generator=generator).tolist()

    chosen = images[integers(len(images))]
    flipped = [
        each.flip([dim for dim, flip in ((1, vertical), (2, horizontal)) if flip])
        for each, vertical, horizontal in zip(chosen, integers(2), integers(2), strict=True)
    ]
    clean = torch.stack(flipped).float() / 255
    degraded = mixed(clean, generator)
    height, width = clean.shape[-2:]
    corners = list(zip(integers(height - PATCH + 1), integers(width - PATCH + 1), strict=True))

    def crop(batch: Tensor) -> Tensor:
        return torch.stack(
            [image[:, y : y + PATCH, x : x + PATCH] for image, (y, x) in zip(batch, corners, strict=True)]
        )

    return crop(degraded), crop(clean)


def learning_rate(step: int, steps: int) -> float:
    """Returns the fraction of the peak rate at a step: a linear warm-up times half a cosine down to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(model: nn.Module, run: Run, stream: Stream, steps: int, label: str) -> tuple[float, float]:
    """Trains all parameters in place.

    Returns:
        Seconds of wall time, and the mean loss since it was last logged.
    """
    # Depthwise convolutions are most of the work and are faster in this layout, on CPU and GPU alike.
    model.to(run.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[loss]}"))
    losses: list[float] = []
    last_loss = math.nan
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=steps, loss="")
        for step in range(steps):
            degraded, clean = (
                part.to(run.device).contiguous(memory_format=torch.channels_last)
                for part in draw_batch(run.train, run.generator(stream, step))
            )
            loss = nn.functional.l1_loss(model(degraded), clean)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if len(losses) == LOG_EVERY or step + 1 == steps:
                last_loss = sum(losses) / len(losses)
                losses.clear()
                seconds = (time.perf_counter() - start) / (step + 1)
                progress.console.print(f"{label}: step {step + 1}/{steps}, loss {last_loss:.5f}, {seconds:.3f} s/step")
            progress.update(task, advance=1, loss=f"loss {last_loss:.5f}")
    return time.perf_counter() - start, last_loss


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load_model(run: Run, phase: Phase) -> nn.Module:
    """Returns the model that a phase trained, patched if that phase patched it, on the run's device."""
    model: nn.Module = tiny_restormer()
    if phase is Phase.EXDA:
        exda.patch(model)
    model.load_state_dict(load_file(run.checkpoint(phase)))
    return model.to(run.device)


def run_phase(run: Run, phase: Phase, steps: int) -> None:
    """Trains one phase and writes its checkpoint and record; a phase that is done already is only checked.

    Raises:
        typer.BadParameter: if the phase was run before with other settings.
    """
    path = run.checkpoint(phase)
    start_sha256 = "" if phase is Phase.PRETRAIN else sha256(run.checkpoint(Phase.PRETRAIN))
    if path.exists():
        found = run.record(phase)
        asked = (steps, run.seed, run.data_sha256, start_sha256)
        if (found.steps, found.seed, found.data_sha256, found.start_sha256) != asked:
            raise typer.BadParameter(
                f"{path} was made with other steps, seed, images or starting weights than those given now; "
                "choose another --out or delete the file"
            )
        console.print(f"{phase.value}: done before, {path}")
        return

    if phase is Phase.PRETRAIN:
        torch.manual_seed(run.generator(Stream.WEIGHTS, 0).initial_seed())
        model: nn.Module = tiny_restormer()
        stream = Stream.PRETRAIN
    else:
        model = load_model(run, Phase.PRETRAIN)
        stream = Stream.FURTHER
    if phase is Phase.EXDA:
        console.print(str(exda.patch(model)), markup=False, soft_wrap=True)
    trained_on = machine()
    seconds, last_loss = train(model, run, stream, steps, phase.value)
    record = Record(
        phase=phase.value,
        steps=steps,
        seed=run.seed,
        data_sha256=run.data_sha256,
        start_sha256=start_sha256,
        parameters=parameter_count(model),
        seconds=round(seconds, 1),
        last_loss=last_loss,
        device=str(run.device),
        machine=trained_on,
    )
    path.with_suffix(".json").write_text(json.dumps(asdict(record), indent=2) + "\n")
    # The checkpoint is written last and renamed when complete: if it exists, the phase is done.
    partial = path.with_suffix(".partial")
    if exda.is_patched(model):
        exda.save(model, partial, whole=True)
    else:
        save_file({key: value.cpu().contiguous() for key, value in model.state_dict().items()}, partial)
    partial.rename(path)
    console.print(f"{phase.value}: {path}, {record.parameters:,} parameters, {seconds:.0f} s")
