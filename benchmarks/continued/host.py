"""The host's weights: found, or trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.quality.configs import model_arguments
from benchmarks.quality.forms import WIDENED
from benchmarks.quality.sitting import TimeUpError

import exda_primitives as exda
from exda_primitives.checkpoints.safe import write_safetensors
from exda_primitives.files import replacing
from exda_primitives.training import TrainConfig, prepare, train
from exda_primitives.training.state import State

from .forms import Continued
from .widen import widened


def host_weights(
    form: Continued, source: str, work: Path, accelerator: str, is_over: Callable[[], bool], command: str
) -> Path | None:
    """A file in the folder of the runs at hand, trained if need be; None where the time was up before it was done.

    Where the form's own file was not there, it is written, too.

    Args:
        form: of the benchmark.
        source: of the training crops.
        work: folder.
        accelerator: ``"cpu"`` or ``"gpu"``.
        is_over: whether to stop at the next checkpoint.
        command: for the results of the trainings.
    """
    host, path = form.host, work / "host.safetensors"
    if not host.weights.exists():
        made: Path | None = None
        for phase in host.phases:
            told = TrainConfig.decoded(
                {
                    "model": {
                        "name": "restormer",
                        "arguments": {} if made else dict(form.model),
                        "checkpoint": made and str(made),
                    },
                    "data": {"source": source, "degradations": list(host.degradations), "patch": phase.patch},
                    "recipe": dict(phase.recipe),
                }
            )
            plan = prepare(told, work / phase.name, accelerator=accelerator)
            every = told.recipe.save_every

            def on_step(state: State, every: int = every, steps: int = plan.steps) -> None:
                if state.step % every == 0 and state.step < steps and is_over():
                    raise TimeUpError

            try:
                train(plan, command=f"{command}: {phase.name}", on_step=on_step)
            except TimeUpError:
                return None
            made = plan.folder.weights
        assert made is not None
        _copy(made, host.weights)
    _copy(host.weights, path)
    return path


def widened_weights(form: Continued, host: Path) -> Path:
    """The file of the widened host, beside the host's; the same numbers each time."""
    path = host.with_name("widened.safetensors")
    arguments: dict[str, Any] = model_arguments(form, WIDENED)
    net = widened(exda.models.create("restormer", host), form.model, arguments["ffn_expansion_factor"])
    write_safetensors(net.state_dict(), {}, path)
    return path


def _copy(one: Path, other: Path) -> None:
    other.parent.mkdir(parents=True, exist_ok=True)
    with replacing(other) as partial:
        shutil.copyfile(one, partial)
