"""From a job to a training configuration; ranks of LoRA."""

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
    """Files of weights: the host's, and those of the widened host."""

    host: Path
    widened: Path


def configuration(
    form: Continued, job: Job, source: str, starts: Starts, changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """What ``exda_primitives.workbench.training.prepare`` is told.

    Args:
        form: of the benchmark.
        job: which network.
        source: of the training crops.
        starts: where it begins.
        changes: over the recipe, its learning rate for one.
    """
    arm, training = ARMS[job.arm], job.setting.training
    return TrainConfig.decoded(
        {
            "model": {"name": "restormer", "checkpoint": str(starts.widened if arm.widened else starts.host)},
            "primitives": arm.primitives,
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
    """Of the arm's LoRA: with it, as many parameters are new as with both primitives, or nearly so."""
    assert arm.lora is not None
    host = counted(model)
    wanted = counted(model, PRIMITIVES[COMPARED]) - host
    if arm.primitives is not None:
        wanted -= counted(model, arm.primitives) - host
    net = exda.models.create("restormer", **model)
    add_lora(net, LoraConfig(1, arm.lora))
    return max(round(wanted / sum(each.numel() for each in lora_parameters(net).values())), 1)
