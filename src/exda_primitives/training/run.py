"""A run from its first step to its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader

from .. import results
from ..checkpoints import save
from ..checkpoints.safe import write_safetensors
from ..errors import DivergedError, ExDAError
from ..patching import is_patched
from .build import build
from .config import TrainConfig
from .data import open_data
from .exactness import circumstances, deterministic, prepare_cublas, why_not
from .extra import fabric, fabric_strategies
from .folder import Folder
from .lora import without_lora
from .order import AtPlaces, Order, Pair, batched, in_worker
from .plan import Plan, channels, length, parameters
from .plot import draw
from .state import State, read_checkpoint, write_checkpoint
from .step import Done, Step
from .validate import PROTOCOL, validate

KIND = "train"

OnStep = Callable[[State], None]
"""Called in each process when a step is done and what it led to is written."""


def train(plan: Plan, *, command: str = "", on_step: OnStep | None = None) -> results.Result:
    """Trains to the end, from the beginning or from the checkpoint in the folder.

    After an interruption, the same call goes on after the last checkpoint. What it then computes is bit for bit what
    it would have computed without; where that cannot be, it says why, on the terminal and in the result.

    Args:
        plan: see :func:`~exda_primitives.training.prepare`.
        command: that was run, for the result.
        on_step: with several devices it must be a function of a module.

    Returns:
        What is in the folder's ``result.json``.

    Raises:
        DivergedError: for NaN or infinity; the last checkpoint stays.
        ImageError: for a picture that cannot be read, is too small, or does not fit its partner; likewise.
        OSError: if the folder cannot be written.
    """
    if plan.done:
        return results.read(plan.folder.result, KIND)
    plan.folder.path.mkdir(parents=True, exist_ok=True)
    told: SimpleQueue[ExDAError] = get_context("spawn").SimpleQueue()
    try:
        result: results.Result = _launcher(plan).launch(
            _work, plan.config.as_dict(), plan.folder.path, command, on_step, told
        )
    except ProcessRaisedException:
        if told.empty():
            raise
        raise told.get() from None
    return result


def _launcher(plan: Plan) -> Any:
    if plan.accelerator == "gpu":
        prepare_cublas()
    if plan.devices == 1:
        return fabric().Fabric(accelerator=plan.accelerator, devices=1)
    # Some networks have parameters that nothing uses (PromptIR), or that not every picture uses (MoCE-IR).
    together = fabric_strategies().DDPStrategy(find_unused_parameters=True, start_method="spawn")
    return fabric().Fabric(accelerator=plan.accelerator, devices=plan.devices, strategy=together)


def _work(
    here: Any,
    config: Mapping[str, Any],
    out: Path,
    command: str,
    on_step: OnStep | None,
    told: SimpleQueue[ExDAError],
) -> results.Result:
    """What each process does; Lightning takes no frozen dataclass through to it."""
    cuda = [here.device] if here.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        try:
            return Run(here, TrainConfig.decoded(config), Folder(out)).finish(command, on_step)
        except ExDAError as error:
            if here.world_size > 1:
                # Of what a process raises, the one that began it is given the traceback alone.
                told.put(error)
            raise


class Run:
    """A run in one of its processes.

    Args:
        here: Lightning's Fabric, of this process.
        config: what to train, and how.
        folder: where; with a checkpoint in it, that is where the run goes on.
    """

    def __init__(self, here: Any, config: TrainConfig, folder: Folder) -> None:
        self.here, self.config, self.folder = here, config, folder
        net = here.to_device(build(config).net)
        self.data = open_data(config, channels(net))
        self.steps = length(config, len(self.data.training), here.world_size)
        self.state = State(net, config.recipe)
        self.legs: list[dict[str, Any]] = []
        self.saved: int | None = None
        if folder.checkpoint.exists():
            held = read_checkpoint(folder.checkpoint)
            self.state.restore(held)
            self.legs, self.saved = held["legs"], self.state.step
        self.step = Step(here, here.setup_module(net, move_to_device=False), self.state, config.recipe, self.steps)
        self.console = Console(quiet=here.global_rank != 0)

    def finish(self, command: str, on_step: OnStep | None) -> results.Result:
        """See :func:`train`."""
        leg = self._begin_leg()
        start = time.perf_counter()
        try:
            with deterministic(self.here.device) as leg["indeterminate"], self._progress() as advance:
                for done in self._steps():
                    leg["seconds"] = round(time.perf_counter() - start, 3)
                    self._after(done)
                    advance()
                    if on_step is not None:
                        on_step(self.state)
        except DivergedError as error:
            kept = "no checkpoint yet" if self.saved is None else f"the checkpoint of step {self.saved}"
            raise DivergedError(f"{error} {self.folder.path} holds {kept}.") from None
        # The other processes' is not asked for.
        return self._result(command) if self.here.global_rank == 0 else {}

    def _begin_leg(self) -> dict[str, Any]:
        state = self.state
        now = circumstances(self.here.device, self.here.world_size, self.data.training)
        leg = {"after_step": state.step, "seconds": 0.0, **now, "not_bit_for_bit": []}
        if self.legs:
            leg["not_bit_for_bit"] = why_not(self.legs[-1], leg)
            reasons = "; ".join(leg["not_bit_for_bit"])
            how = f"but not bit for bit: {reasons}" if reasons else "bit for bit"
            self.console.print(f"goes on after step {state.step}, {how}", highlight=False, markup=False, soft_wrap=True)
        self.legs.append(leg)
        return leg

    def _steps(self) -> Iterator[Done]:
        recipe, todo, device = self.config.recipe, range(self.state.step, self.steps), self.here.device
        order = Order(
            len(self.data.training),
            recipe.seed,
            todo,
            batch=recipe.batch,
            accumulate=recipe.accumulate,
            rank=self.here.global_rank,
            world=self.here.world_size,
        )
        batches = iter(
            DataLoader(
                AtPlaces(self.data.training),
                batch_sampler=order,
                num_workers=self.config.data.workers,
                worker_init_fn=in_worker,
                collate_fn=batched,
                pin_memory=device.type == "cuda",
            )
        )

        def passes() -> Iterator[Pair]:
            for batch in islice(batches, recipe.accumulate):
                if isinstance(batch, ExDAError):
                    raise batch
                yield Pair(*(part.to(device, non_blocking=True) for part in batch))

        for _ in todo:
            yield self.step(passes())

    def _after(self, done: Done) -> None:
        recipe, state, last = self.config.recipe, self.state, self.state.step == self.steps
        psnr = None
        if self.data.validation is not None and (last or state.step % (recipe.validate_every or self.steps) == 0):
            psnr = validate(self.here, state.result, self.data.validation, recipe)
        if last or psnr is not None or state.step % recipe.log_every == 0:
            self._log(done, psnr)
        if last or state.step % recipe.save_every == 0:
            self._save()

    def _log(self, done: Done, psnr: float | None) -> None:
        state = self.state
        mean = sum(state.window) / len(state.window)
        # Of a step of float16 that overflowed, it is infinite.
        norm = done.gradient_norm if math.isfinite(done.gradient_norm) else None
        line = {
            "step": state.step,
            "loss": mean,
            "learning_rate": done.learning_rate,
            "gradient_norm": norm,
            "psnr": psnr,
        }
        state.history.append(line)
        state.window.clear()
        shown = "" if psnr is None else f", PSNR {psnr:.2f} dB"
        self.console.print(f"step {state.step}: loss {mean:.5f}{shown}", highlight=False, markup=False)

    def _save(self) -> None:
        self.saved = self.state.step
        if self.here.global_rank == 0:
            write_network(self.state.result, self.folder.weights)
            write_checkpoint(self.folder.checkpoint, self.state, self.config, self.legs)
        self.here.barrier()

    def _result(self, command: str) -> results.Result:
        state, config, folder = self.state, self.config, self.folder
        result = results.begin(folder.result, KIND, config.as_dict(), [config.recipe.seed], command, self.here.device)
        result["runs"] = [
            {
                "steps": state.step,
                "parameters": parameters(state.net),
                "trained_parameters": parameters(state.net, trained=True),
                "processes": self.here.world_size,
                "psnr": state.history[-1]["psnr"],
                "psnr_protocol": PROTOCOL,
                "legs": self.legs,
                "history": state.history,
            }
        ]
        draw(state.history, folder.plot)
        results.write(folder.result, result)
        return result

    @contextmanager
    def _progress(self) -> Iterator[Callable[[], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=self.console.quiet) as progress:
            task = progress.add_task("training", total=self.steps, completed=self.state.step)
            yield lambda: progress.update(task, completed=self.state.step)


def write_network(net: nn.Module, path: Path) -> None:
    """As ``exda.models.create(checkpoint=...)`` reads it, patched or not; replaced whole or not at all.

    LoRA is added to the weights that it stands beside.
    """
    net = without_lora(net, merge=True)
    if is_patched(net):
        save(net, path, whole=True)
    else:
        write_safetensors(net.state_dict(), {}, path)
