"""Training configurations of jobs, and the size of the widened host."""

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
"""Largest relative difference in parameters between the widened host and the host with both primitives."""


def configuration(form: BenchmarkConfig, job: Job, source: str, steps: int | None = None) -> TrainConfig:
    """Returns a job's training configuration, for ``exda_primitives.workbench.training.prepare``.

    Args:
        form: the benchmark's form.
        job: which network is trained.
        source: folder, zip or npz of the training crops.
        steps: number of steps for a budget of time; the recipe's by default.
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
    """Returns an arm's arguments of ``Restormer``.

    The widened host gets wider feed-forwards, because ``dim`` changes the number of parameters in steps too coarse to
    match the host with both primitives.
    """
    arguments = dict(form.model)
    if arm == WIDENED:
        arguments["ffn_expansion_factor"] = _widened(**{name: _hashable(each) for name, each in form.model.items()})
    return arguments


@cache
def _widened(**model: Any) -> float:
    wanted = counted(model, PRIMITIVES[COMPARED])
    # Bisection for the smallest factor with at least the wanted number of parameters, to 2 decimals.
    low, high = float(model["ffn_expansion_factor"]), 4 * float(model["ffn_expansion_factor"])
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if counted(model | {"ffn_expansion_factor": middle}) >= wanted else (middle, high)
    factor = round(high, 2)
    found = counted(model | {"ffn_expansion_factor": factor})
    if abs(found / wanted - 1) > CLOSE:
        raise ConfigError(
            f"the widened host has {found:,} parameters and the host with both primitives {wanted:,}, more than "
            f"{CLOSE:.0%} apart; take a larger network."
        )
    return factor


def counted(model: Mapping[str, Any], primitives: Mapping[str, Any] | None = None) -> int:
    """Returns the number of parameters of a Restormer with or without primitives, without allocating any."""
    with torch.device("meta"):
        net = exda.models.create("restormer", **model)
        if primitives is not None:
            told = PrimitivesConfig(**primitives)
            exda.patch(net, told.options, include=told.include, exclude=told.exclude)
    return parameters(net)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
