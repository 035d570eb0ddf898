"""From a job to a training configuration; the widened host."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

import exda_primitives as exda
from exda_primitives.errors import ConfigError
from exda_primitives.workbench.training import PrimitivesConfig, TrainConfig
from exda_primitives.workbench.training.plan import parameters

from .forms import COMPARED, PRIMITIVES, WIDENED, BenchmarkConfig, Job

CLOSE = 0.01
"""How far, as a part, the parameters of the widened host may be from those of the host with both primitives."""


def configuration(form: BenchmarkConfig, job: Job, source: str, steps: int | None = None) -> TrainConfig:
    """What ``exda_primitives.workbench.training.prepare`` is told.

    Args:
        form: of the benchmark.
        job: which network.
        source: of the training crops.
        steps: in place of those of the recipe, for a budget of time.
    """
    training = job.setting.training
    recipe = {**form.recipe, **training.get("recipe", {}), "seed": job.seed}
    primitives = {**PRIMITIVES[job.arm], **job.setting.primitives} if job.arm in PRIMITIVES else None
    return TrainConfig.decoded(
        {
            "model": {"name": "restormer", "arguments": model_arguments(form, job.arm)},
            "primitives": primitives,
            "data": {**form.data, **training.get("data", {}), "source": source},
            "recipe": recipe if steps is None else {**recipe, "steps": steps},
        }
    )


def model_arguments(form: BenchmarkConfig, arm: str) -> dict[str, Any]:
    """Of Restormer. The widened one has wider feed-forwards: channels come in steps too coarse to be as many."""
    arguments = dict(form.model)
    if arm == WIDENED:
        arguments["ffn_expansion_factor"] = _widened(**{name: _hashable(each) for name, each in form.model.items()})
    return arguments


@cache
def _widened(**model: Any) -> float:
    wanted = counted(model, PRIMITIVES[COMPARED])
    low, high = float(model["ffn_expansion_factor"]), 4 * float(model["ffn_expansion_factor"])
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if counted(model | {"ffn_expansion_factor": middle}) >= wanted else (middle, high)
    factor = round(high, 2)
    found = counted(model | {"ffn_expansion_factor": factor})
    if abs(found / wanted - 1) > CLOSE:
        raise ConfigError(
            f"the widened host has {found:,} parameters, the host with both primitives {wanted:,}: more than "
            f"{CLOSE:.0%} apart; take a larger network."
        )
    return factor


def counted(model: Mapping[str, Any], primitives: Mapping[str, Any] | None = None) -> int:
    """Parameters of a Restormer, with primitives or without; nothing is allocated."""
    with torch.device("meta"):
        net = exda.models.create("restormer", **model)
        if primitives is not None:
            told = PrimitivesConfig(**primitives)
            exda.patch(net, told.options, include=told.include, exclude=told.exclude)
    return parameters(net)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
