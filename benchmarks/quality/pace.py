"""Measures the time of a training step of each arm relative to the host's, all arms taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from exda_primitives.workbench.shared.packages import fabric
from exda_primitives.workbench.training import TrainConfig
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.exactness import deterministic, prepare_cublas
from exda_primitives.workbench.training.order import Pair
from exda_primitives.workbench.training.state import State
from exda_primitives.workbench.training.step import Step

from .forms import HOST

CLOCKS = {"cpu": "time of the process on one thread of the processor", "gpu": "wall-clock, with the GPU waited for"}
"""Process time on the CPU: on a shared processor, wall-clock time would include other processes."""

STEPS, TURNS = 5, 9


def pace(
    configs: Mapping[str, TrainConfig], accelerator: str, *, steps: int = STEPS, turns: int = TURNS
) -> dict[str, Any]:
    """Measures the time of optimiser steps. Preparing the pairs is left out: it costs all arms the same.

    Args:
        configs: arm -> its training configuration, including the host's.
        accelerator: ``"cpu"`` or ``"gpu"``.
        steps: steps of each arm in a turn.
        turns: turns over all arms, after a first one that is not counted.

    Returns:
        Plain data: the clock, the host's seconds per step (median over turns), and for each arm its ratio to the host
        (median over turns).
    """
    if accelerator == "gpu":
        prepare_cublas()
    here = fabric().Fabric(accelerator=accelerator, devices=1)
    seconds: dict[str, list[float]] = {arm: [] for arm in configs}
    with torch.random.fork_rng(), deterministic(here.device):
        runs = {arm: _steps(here, config, steps) for arm, config in configs.items()}
        for turn in range(turns + 1):
            for arm, run in runs.items():
                taken = _seconds(run, here.device) / steps
                # Turn 0 is the warm-up.
                if turn:
                    seconds[arm].append(taken)
    return {
        "clock": CLOCKS[accelerator],
        "host_seconds": statistics.median(seconds[HOST]),
        "ratio": {
            arm: statistics.median(ours / host for ours, host in zip(each, seconds[HOST], strict=True))
            for arm, each in seconds.items()
        },
    }


def steps_in_time(host_steps: int, ratio: float) -> int:
    """Returns how many steps fit into the time of the host's steps, at ``ratio`` times the host's time per step."""
    return max(int(host_steps / ratio), 1)


def _steps(here: Any, config: TrainConfig, number: int) -> Callable[[], None]:
    net = here.to_device(build(config).net)
    state = State(net, config.recipe)
    assert config.recipe.steps is not None
    step = Step(here, here.setup_module(net, move_to_device=False), state, config.recipe, config.recipe.steps)
    side = config.data.patch
    # Random pairs do: the time of a step does not depend on their contents.
    clean = torch.rand(config.recipe.batch, 3, side, side, device=here.device)
    pair = Pair((clean + 0.1 * torch.randn_like(clean)).clamp(0, 1), clean)

    def run() -> None:
        for _ in range(number):
            step([pair])

    return run


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    start = clock()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return clock() - start
