"""Train the demo's weights, and compare equal further training with and without ExDA.

A tiny Restormer is trained to remove haze, rain and noise. From those weights two arms then train equally long, on
the same patches with the same degradations and the same optimiser settings: the host as it is, and the host after
`exda.patch`. Both are measured on photographs that neither has seen.

Phases run in the order of `Phase`. Each leaves a checkpoint and a record in ``--out``; a phase whose checkpoint is
already there is not run again, so an interrupted run is continued by repeating its command. On a CPU that is busy
with other work, ``OMP_NUM_THREADS=1`` is often the fastest.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import subprocess
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TextColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import exda_primitives as exda
from exda_primitives.demo.degradation import mixed
from exda_primitives.demo.model import tiny_restormer
from exda_primitives.demo.photograph import photograph

RESULTS = Path(__file__).parent / "results"

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
    """What is run, in this order."""

    PRETRAIN = "pretrain"
    HOST = "host"
    EXDA = "exda"
    REPORT = "report"


class Stream(int, Enum):
    """Which random numbers: the two arms share FURTHER, and nothing else is shared."""

    WEIGHTS = 0
    PRETRAIN = 1
    FURTHER = 2
    EVALUATE = 3


@dataclass(frozen=True)
class Record:
    """How a checkpoint came about.

    Attributes:
        phase: its name.
        steps: optimiser steps.
        seed: the run's seed.
        data_sha256: of the zip of pictures.
        start_sha256: of the checkpoint the phase started from; empty for the first.
        parameters: number of parameters.
        seconds: wall time of the training alone.
        last_loss: mean L1 loss over the last logged steps.
        commit: git commit at the start, with ``+changes`` when the working tree differed from it.
        device: torch device.
        cpu: model name of the processor.
        threads: CPU threads that torch used.
    """

    phase: str
    steps: int
    seed: int
    data_sha256: str
    start_sha256: str
    parameters: int
    seconds: float
    last_loss: float
    commit: str
    device: str
    cpu: str
    threads: int


@dataclass(frozen=True)
class Run:
    """What every phase needs to know."""

    out: Path
    seed: int
    device: torch.device
    data_sha256: str
    train: Tensor

    def generator(self, stream: Stream, step: int) -> torch.Generator:
        """A fresh generator for one step, so that no step depends on what was drawn before it."""
        return torch.Generator().manual_seed((self.seed << 40) + (stream << 32) + step)

    def checkpoint(self, phase: Phase) -> Path:
        return self.out / f"{phase.value}.safetensors"

    def record(self, phase: Phase) -> Record:
        return Record(**json.loads(self.checkpoint(phase).with_suffix(".json").read_text()))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def photo_of(name: str) -> str:
    """The photograph that a crop comes from: ``0014_world_hedgehog.jpg`` gives ``world_hedgehog``."""
    return Path(name).stem.partition("_")[2]


def read_pictures(path: Path) -> tuple[Tensor, list[str], Tensor, list[str]]:
    """Split a zip of equally large crops by photograph, every eighth in alphabetical order being held out.

    Args:
        path: a zip of ``<number>_<photograph>.jpg`` files.

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
            pictures = (Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen)
            return torch.from_numpy(np.stack([np.array(picture) for picture in pictures])).permute(0, 3, 1, 2)

        training = [name for name in names if photo_of(name) not in held_out]
        testing = [name for name in names if photo_of(name) in held_out]
        return stack(training), training, stack(testing), testing


def draw_batch(pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pick, flip, degrade and then crop, so that haze varies as slowly over a patch as over a whole picture.

    Args:
        pictures: (N, 3, H, W) uint8.
        generator: decides everything.

    Returns:
        Degraded and clean patches, both (BATCH, 3, PATCH, PATCH) in [0, 1].
    """

    def integers(below: int) -> list[int]:
        return torch.randint(below, (BATCH,), generator=generator).tolist()

    chosen = pictures[integers(len(pictures))]
    flipped = [
        picture.flip([dim for dim, flip in ((1, vertical), (2, horizontal)) if flip])
        for picture, vertical, horizontal in zip(chosen, integers(2), integers(2), strict=True)
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
    """Fraction of the peak: a linear warm-up times a half cosine down to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(model: nn.Module, run: Run, stream: Stream, steps: int, label: str) -> tuple[float, float]:
    """Train all parameters in place.

    Returns:
        Seconds of wall time, and the mean loss since it was last logged.
    """
    # Depthwise convolutions, most of the work, are faster in this layout on CPU and GPU alike.
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


def git_commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--verify", "--quiet", "HEAD") or "not committed"
    return commit + "+changes" if git("status", "--porcelain", "--untracked-files=no") else commit


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load_model(run: Run, phase: Phase) -> nn.Module:
    """The model as the phase left it, patched if it was, on the run's device."""
    model: nn.Module = tiny_restormer()
    if phase is Phase.EXDA:
        exda.patch(model)
    model.load_state_dict(load_file(run.checkpoint(phase)))
    return model.to(run.device)


def run_phase(run: Run, phase: Phase, steps: int) -> None:
    """Train one phase and write its checkpoint and record, or check that what is there is what was asked for.

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
                f"{path} was made with other steps, seed, pictures or starting weights than asked for now; "
                "choose another --out or delete it"
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
    commit = git_commit()
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
        commit=commit,
        device=str(run.device),
        cpu=cpu_model(),
        threads=torch.get_num_threads(),
    )
    path.with_suffix(".json").write_text(json.dumps(asdict(record), indent=2) + "\n")
    # The checkpoint goes last and gets its name when it is whole: where there is one, the phase is done.
    partial = path.with_suffix(".partial")
    save_file({key: value.cpu().contiguous() for key, value in model.state_dict().items()}, partial)
    partial.rename(path)
    console.print(f"{phase.value}: {path}, {record.parameters:,} parameters, {seconds:.0f} s")


def score(output: Tensor, clean: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM of one image, both (1, 3, H, W), after clipping to [0, 1]."""
    output = output.clamp(0, 1)
    psnr = peak_signal_noise_ratio(output, clean, data_range=1.0)
    ssim = structural_similarity_index_measure(output, clean, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return psnr.item(), ssim.item()


@torch.no_grad()
def evaluate(run: Run, testing: Tensor, phases: Sequence[Phase]) -> dict[str, Any]:
    """Measure the degraded input and the models on the held-out crops (mean) and on the demo's photograph.

    Args:
        run: for the seed, the device and the checkpoints.
        testing: (N, 3, H, W) uint8.
        phases: whose checkpoints to measure.

    Returns:
        ``held_out`` and ``photograph``: {who: {"psnr": dB, "ssim": ...}}; ``held_out_psnr``: {who: one per crop}.
    """
    models = {phase.value: load_model(run, phase).eval() for phase in phases}
    images = [*(crop[None].float() / 255 for crop in testing), photograph()]
    scores: dict[str, list[tuple[float, float]]] = {"degraded": [], **{name: [] for name in models}}
    for index, clean in enumerate(images):
        degraded = mixed(clean, run.generator(Stream.EVALUATE, index))
        scores["degraded"].append(score(degraded, clean))
        for name, model in models.items():
            scores[name].append(score(model(degraded.to(run.device)).cpu(), clean))

    def mean(values: Sequence[tuple[float, float]]) -> dict[str, float]:
        psnr, ssim = (sum(column) / len(values) for column in zip(*values, strict=True))
        return {"psnr": round(psnr, 3), "ssim": round(ssim, 4)}

    return {
        "held_out": {name: mean(values[:-1]) for name, values in scores.items()},
        "photograph": {name: mean(values[-1:]) for name, values in scores.items()},
        "held_out_psnr": {name: [round(psnr, 3) for psnr, _ in values[:-1]] for name, values in scores.items()},
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(measured: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Lines of a Markdown table with one row for each of degraded, pretrain, host, exda."""
    titles = {
        "degraded": "degraded input",
        Phase.PRETRAIN.value: "host, pre-trained",
        Phase.HOST.value: "host, trained further",
        Phase.EXDA.value: "host + ExDA, trained further",
    }
    lines = [
        "| | held-out PSNR (dB) | held-out SSIM | photograph PSNR (dB) | photograph SSIM |",
        "|---|---|---|---|---|",
    ]
    for name, title in titles.items():
        crops, photo = measured["held_out"][name], measured["photograph"][name]
        cells = (f"{place['psnr']:.2f} | {place['ssim']:.4f}" for place in (crops, photo))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def report(run: Run, testing: Tensor, testing_names: Sequence[str], command: str) -> None:
    """Evaluate all three models and write the JSON and the Markdown of the results."""
    trained = (Phase.PRETRAIN, Phase.HOST, Phase.EXDA)
    records = {phase.value: run.record(phase) for phase in trained}
    host, ours = records[Phase.HOST.value], records[Phase.EXDA.value]
    measured = evaluate(run, testing, trained)
    pairs = list(
        zip(
            measured["held_out_psnr"][Phase.EXDA.value],
            measured["held_out_psnr"][Phase.HOST.value],
            strict=True,
        )
    )
    differences = torch.tensor([ours - theirs for ours, theirs in pairs])
    comparison = {
        "mean_psnr_difference": round(differences.mean().item(), 3),
        "standard_error": round((differences.std() / math.sqrt(len(pairs))).item(), 3),
        "crops_where_exda_is_better": int((differences > 0).sum()),
        "crops": len(pairs),
    }
    result = {
        "command": command,
        "seed": run.seed,
        "data_sha256": run.data_sha256,
        "training_crops": len(run.train),
        "held_out_photographs": sorted({photo_of(name) for name in testing_names}),
        "settings": {
            "batch": BATCH,
            "patch": PATCH,
            "optimiser": "AdamW",
            "loss": "L1",
            "schedule": f"{WARM_UP_STEPS} steps of warm-up, then cosine to 0, anew for each phase",
            "peak_learning_rate": PEAK_LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "gradient_norm": GRADIENT_NORM,
        },
        "software_and_machine": {
            "cpu": ours.cpu,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "phases": {name: asdict(record) for name, record in records.items()},
        "exda_minus_host": comparison,
        **measured,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo_weights.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        "# Demo weights: equal further training with and without ExDA",
        "",
        *table(measured),
        "",
        f"ExDA minus host on the {len(pairs)} held-out crops: {comparison['mean_psnr_difference']:+.3f} dB "
        f"(standard error {comparison['standard_error']:.3f} over crops), better on "
        f"{comparison['crops_where_exda_is_better']}. One seed ({run.seed}): the error over crops says nothing "
        "about how much another training run would differ.",
        "",
        "| phase | parameters | steps | wall time (s) | threads |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {done.parameters:,} | {done.steps} | {done.seconds:.0f} | {done.threads} |"
            for name, done in records.items()
        ),
        "",
        f"ExDA adds {ours.parameters - host.parameters:,} parameters "
        f"({100 * (ours.parameters / host.parameters - 1):.1f} %). "
        f"Trained on {ours.device}: {ours.cpu}, {os.cpu_count()} cores; torch {torch.__version__}, Python "
        f"{platform.python_version()}; commit {ours.commit}.",
        "",
        f"Command: `{command}`",
    ]
    (RESULTS / "demo_weights.md").write_text("\n".join(lines) + "\n")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def main(
    *,
    data: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Zip of <number>_<photo>.jpg crops.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where checkpoints and records go.")],
    pretrain_steps: Annotated[int, typer.Option(min=1)] = 6000,
    further_steps: Annotated[int, typer.Option(min=1)] = 2400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    stop_after: Annotated[Phase, typer.Option(help="Last phase to run.")] = Phase.REPORT,
) -> None:
    """Train the demo's weights and report how the host and the ExDA-patched host compare."""
    out.mkdir(parents=True, exist_ok=True)
    training, training_names, testing, testing_names = read_pictures(data)
    console.print(
        f"{len(training_names)} crops to train on; {len(testing_names)} held out, of "
        f"{len({photo_of(name) for name in testing_names})} photographs; {torch.get_num_threads()} threads"
    )
    run = Run(out=out, seed=seed, device=torch.device(device), data_sha256=sha256(data), train=training)
    order = list(Phase)
    for phase in order[: order.index(stop_after) + 1]:
        if phase is Phase.REPORT:
            # Paths are reduced to names: the folders of whoever ran this are nobody else's business.
            command = (
                f"python benchmarks/demo_weights.py --data {data.name} --out {out.name} "
                f"--pretrain-steps {pretrain_steps} --further-steps {further_steps} --seed {seed} "
                f"--device {device}"
            )
            report(run, testing, testing_names, command)
        else:
            run_phase(run, phase, pretrain_steps if phase is Phase.PRETRAIN else further_steps)


if __name__ == "__main__":
    typer.run(main)
