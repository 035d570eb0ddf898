"""Checks what a user asks for, and puts it into a training configuration; writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from ..data import PairedFileSet, open_images, paired_folders
from ..data.alignment import alignment
from ..shared.messages import with_problems
from ..training import Plan, TrainConfig
from ..training import prepare as prepare_training
from ..training.config import first_of
from ..training.files import resolved, with_changes
from .asked import Asked
from .methods import METHODS

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 16
"""Share of the images that are held out, and their largest number, unless the user gives a number."""

PATCHES: Mapping[str, int] = {"cpu": 64, "gpu": 128}
"""Where it is trained -> side of the patches in pixels."""

FEW = 20
"""Fewer images than this to train on are said to be few."""

PAIRS_CHECKED = 16
"""Most pairs of files whose alignment is measured, evenly spread."""

RECIPE: Mapping[str, Any] = {
    "batch": 4,
    "warm_up": 0.05,
    "weight_decay": 1e-4,
    "clip": 1.0,
    "train": "new",
    "log_every": 50,
    "save_every": 200,
}
"""The recipe of the adaptation benchmark, without steps and learning rate, which the search chooses."""


@dataclass(frozen=True)
class Adaptation:
    """An adaptation that can be started or resumed.

    Attributes:
        asked: what the user asked for.
        out: folder of its files.
        plan: the training run; until the search has chosen, its steps and learning rate are placeholders.
        chosen: what the search chose, plain data; None before.
        notes: what the user has to know before the work, one text each.
    """

    asked: Asked
    out: Path
    plan: Plan
    chosen: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def record(self) -> Path:
        """The request, and what the search chose."""
        return record_in(self.out)

    @property
    def patch(self) -> Path:
        """The trained parameters, for ``load`` and ``exda restore --patch``."""
        return self.out / "patch.safetensors"


def record_in(out: Path) -> Path:
    """Returns the file of a folder that holds the request and what the search chose."""
    return out / "adapt.json"


def prepare(asked: Asked, out: Path, *, accelerator: str = "auto") -> Adaptation:
    """Checks the network, the images and the folder.

    Args:
        asked: what to do.
        out: folder of the adaptation: a new one, or one to resume.
        accelerator: ``"cpu"``, ``"gpu"``, or ``"auto"`` for a GPU if there is one.

    Raises:
        ConfigError: for a folder with another adaptation, and for values that are not possible.
        CheckpointError, DataError, ImageError, NoMatchError: for what cannot be read or does not fit.
        ExDAError: if packages of the extra ``adapt`` are not installed.
    """
    chosen = _chosen(asked, out)
    there = _images(asked)
    held_out = asked.held_out or min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * there)))
    config = configuration(asked, held_out, accelerator, chosen)
    plan = prepare_training(config, out / "run", accelerator=accelerator)
    return Adaptation(asked, out, plan, chosen, tuple(_notes(plan, there - held_out, held_out)))


def configuration(asked: Asked, held_out: int, accelerator: str, chosen: Mapping[str, Any] | None) -> TrainConfig:
    """Returns the training configuration; the user's changes win over everything else."""
    patch = PATCHES["gpu" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"]
    clean = str(asked.clean)
    source: Any = clean if asked.degraded is None else {"degraded": str(asked.degraded), "clean": clean}
    method = METHODS[asked.method]
    given: dict[str, Any] = {
        "model": {"name": "auto", "checkpoint": str(asked.checkpoint)},
        "data": {
            "source": source,
            "degradations": list(asked.degradations),
            "patch": patch,
            "held_out": held_out,
        },
        "recipe": {**RECIPE, "steps": 1, "learning_rate": method.rates[1], **(chosen or {})},
        **method.sections,
    }
    return TrainConfig.decoded(resolved(with_changes(given, asked.changes)))


def _chosen(asked: Asked, out: Path) -> Mapping[str, Any] | None:
    """Returns steps and learning rate that were chosen in this folder before.

    Raises:
        ConfigError: if the folder holds another adaptation.
    """
    path = record_in(out)
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        found, chosen = held["asked"], held["chosen"]
        chosen = {"steps": int(chosen["steps"]), "learning_rate": float(chosen["learning_rate"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged ({type(error).__name__}: {error}). Give another folder.") from None
    if differing := asked.differences_from(found):
        raise ConfigError(f"{out}: holds another adaptation: {first_of(differing)}. Give another folder.")
    return chosen


def _images(asked: Asked) -> int:
    """Returns the number of clean images, or of pairs."""
    if asked.degraded is None:
        return len(open_images(asked.clean))
    return len(paired_folders(asked.degraded, asked.clean))


def _notes(plan: Plan, trained: int, held_out: int) -> Iterator[str]:
    if left_out := plan.network.left_out:
        yield with_problems("layers without LoRA:", [f"{name}: {reason}" for name, reason in left_out.items()])
    what = "pairs" if isinstance(plan.data.training, PairedFileSet) else "images"
    yield f"{trained} {what} to train on, {held_out} held out for the table of before and after"
    if trained < FEW:
        yield (
            f"{trained} {what} are few: the network may learn them by heart, and do worse on others. Judge it by the "
            f"{held_out} held out, and by images of your own."
        )
    if isinstance(plan.data.training, PairedFileSet):
        problems = list(_misaligned(plan.data.training))
        if problems:
            yield with_problems(
                "not aligned, so that the network would learn to blur or to shift; align them, or take them out of the "
                "set:",
                problems,
            )


def _misaligned(pairs: PairedFileSet) -> Iterator[str]:
    """Yields name and problem of each pair that is not aligned, among at most ``PAIRS_CHECKED``."""
    files = pairs.files
    for pair in files.pairs[:: -(-len(files) // PAIRS_CHECKED)]:
        if pair.degraded is None:
            continue
        images = [files.read(path, pair.degradation) for path in (pair.degraded, pair.clean)]
        if problem := alignment(*images).problem:
            yield f"{pair.name}: {problem}"
