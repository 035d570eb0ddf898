"""Finds the host's weights, or trains them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exda_primitives as exda
from benchmarks.quality.configs import model_arguments
from benchmarks.quality.forms import WIDENED
from benchmarks.quality.session import TimeUpError
from exda_primitives.checkpoints.io import write_safetensors
from exda_primitives.files import atomic_write
from exda_primitives.workbench.training import TrainConfig, prepare, train
from exda_primitives.workbench.training.state import State

from .forms import Continued, Phase
from .widen import widened


def host_weights(
    form: Continued, source: str, work: Path, accelerator: str, is_over: Callable[[], bool], command: str
) -> Path | None:
    """Returns the host's weight file in the working folder, trained if need be; None if the time ran out before.

    If the host's own weight file is missing, it is written as well.

    Args:
        form: the benchmark's form.
        source: folder, zip or npz of the training crops.
        work: working folder.
        accelerator: ``"cpu"`` or ``"gpu"``.
        is_over: says whether to stop at the next checkpoint.
        command: the command that the trainings' results name.
    """
    host, path = form.host, work / f"{form.host.file}.safetensors"
    if host.weights is not None and host.weights.exists():
        _copy(host.weights, path)
    elif not path.exists():
        # Phase by phase, each from the weights of the one before; ``train`` resumes a phase that was interrupted.
        made: Path | None = None
        for phase in host.phases:
            kept = _kept(form, phase)
            if kept is not None and kept.exists():
                made = kept
                continue
            made = _trained(form, phase, made, source, work, accelerator, is_over, command)
            if made is None:
                return None
            if kept is not None:
                _copy(made, kept)
        assert made is not None
        _copy(made, path)
    if host.weights is not None and not host.weights.exists():
        _copy(path, host.weights)
    return path


def _kept(form: Continued, phase: Phase) -> Path | None:
    """Returns where an earlier phase's weights are kept next to the host's file, so that other machines can go on."""
    weights = form.host.weights
    if weights is None or phase is form.host.phases[-1]:
        return None
    return weights.with_name(f"{weights.stem}_{phase.patch}.safetensors")


def _trained(
    form: Continued,
    phase: Phase,
    start: Path | None,
    source: str,
    work: Path,
    accelerator: str,
    is_over: Callable[[], bool],
    command: str,
) -> Path | None:
    told = TrainConfig.decoded(
        {
            "model": {
                "name": "restormer",
                # A checkpoint determines the architecture; the first phase has none.
                "arguments": {} if start else dict(form.model),
                "checkpoint": start and str(start),
            },
            "data": {
                "source": source,
                "degradations": list(form.host.degradations),
                "patch": phase.patch,
                "workers": form.data.get("workers", 0),
            },
            "recipe": dict(phase.recipe),
        }
    )
    plan = prepare(told, work / phase.name, accelerator=accelerator)

    def on_step(state: State) -> None:
        if state.step % told.recipe.save_every == 0 and state.step < plan.steps and is_over():
            raise TimeUpError

    try:
        train(plan, command=f"{command}: {phase.name}", on_step=on_step)
    except TimeUpError:
        return None
    return plan.folder.weights


def widened_weights(form: Continued, host: Path) -> Path:
    """Writes the widened host's weights next to the host's file; the same numbers each time."""
    path = host.with_stem(f"{host.stem}-widened")
    arguments: dict[str, Any] = model_arguments(form, WIDENED)
    net = widened(exda.models.create("restormer", host), form.model, arguments["ffn_expansion_factor"])
    write_safetensors(net.state_dict(), {}, path)
    return path


def _copy(one: Path, other: Path) -> None:
    other.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(other) as partial:
        shutil.copyfile(one, partial)
