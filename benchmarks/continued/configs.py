"""Training configurations of jobs, and the LoRA ranks that make arms comparable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import exda_primitives as exda
from benchmarks.quality.configs import counted
from benchmarks.quality.forms import COMPARED, PRIMITIVES, Job
from exda_primitives.workbench.training import TrainConfig
from exda_primitives.workbench.training.config import LoraConfig
from exda_primitives.workbench.training.lora import add_lora, lora_parameters

from .forms import ARMS, Arm, Continued


class Starts(NamedTuple):
    """Weight files of the host and of the widened host."""

    host: Path
    widened: Path


def configuration(
    form: Continued, job: Job, source: str, starts: Starts, changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Returns a job's training configuration, for ``exda_primitives.workbench.training.prepare``.

    Args:
        form: the benchmark's form.
        job: which network is trained.
        source: folder, zip or npz of the training crops.
        starts: weights to start from.
        changes: entries that override the recipe, such as the learning rate.
    """
    arm, training = ARMS[job.arm], job.setting.training
    primitives = None if arm.primitives is None else {**arm.primitives, **job.setting.primitives}
    return TrainConfig.decoded(
        {
            "model": {"name": "restormer", "checkpoint": str(starts.widened if arm.widened else starts.host)},
            "primitives": primitives,
            "lora": None if arm.lora is None else {"layers": arm.lora, "rank": rank(form.model, arm)},
            "data": {**form.data, **training.get("data", {}), "source": source},
            "recipe": {
                **form.recipe,
                **training.get("recipe", {}),
                "seed": job.seed,
                "train": arm.train,
                **(changes or {}),
            },
        }
    )


def rank(model: Mapping[str, Any], arm: Arm) -> int:
    """Returns the LoRA rank with which an arm has nearly as many new parameters as the arm with both primitives."""
    assert arm.lora is not None
    host = counted(model)
    wanted = counted(model, PRIMITIVES[COMPARED]) - host
    if arm.primitives is not None:
        wanted -= counted(model, arm.primitives) - host
    # LoRA's parameters grow linearly with the rank: those of rank 1 are the unit.
    net = exda.models.create("restormer", **model)
    add_lora(net, LoraConfig(1, arm.lora))
    return max(round(wanted / sum(each.numel() for each in lora_parameters(net).values())), 1)
