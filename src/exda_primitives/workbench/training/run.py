"""Trains: a run from its first step to its result."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...checkpoints import save
from ...checkpoints.io import write_safetensors
from ...checkpoints.network import state_of
from ...errors import DivergedError, ExDAError, ProcessError, StoppedError, WriteError
from ...patching import is_patched
from ..shared import results
from .build import build
from .config import TrainConfig
from .data import open_data
from .exactness import circumstances, deterministic, prepare_cublas, resume_mismatches
from .folder import Folder, begins_with
from .log import Log
from .lora import without_lora
from .order import AtPlaces, Order, Pair, batched, batches_of, in_worker
from .pauses import Pause, Pauses
from .plan import Plan, channels, length, parameters
from .plot import draw
from .processes import alone, together
from .signals import Asked, asked, listening
from .stages import stages_of
from .state import State, read_checkpoint, write_checkpoint
from .step import Done, Step
from .trackers import Tracker, open_trackers
from .validate import PROTOCOL, validate
from .validation_images import write_sheet

KIND = "train"

OnStep = Callable[[State], None]
"""Called in each process after each step, when its log line and checkpoint, if due, are written."""


def train(plan: Plan, *, command: str = "", on_step: OnStep | None = None) -> results.Result:
    """Trains to the end, from the beginning or from the checkpoint in the folder.

    The run is saved every ``save_every`` steps, every few minutes, and when SIGINT (Ctrl-C), SIGTERM or SIGHUP asks it
    to stop, which it does after the current step; a second signal stops it at once. After any interruption, the same
    call resumes after the last checkpoint, and computes bit for bit what it would have computed without the
    interruption. If that is not possible, it tells why, on the terminal and in the result.

    Args:
        plan: see ``exda_primitives.workbench.training.prepare``.
        command: command that was run, for the result.
        on_step: see ``OnStep``; with several devices it must be a module-level function.

    Returns:
        The content of the folder's ``result.json``.

    Raises:
        StoppedError: if a signal stopped the run; the message tells what is saved.
        DivergedError: for NaN or infinity; the last checkpoint is kept.
        ImageError: for an image that cannot be read any more; the last checkpoint is kept.
        ConfigError: if another run is at work in the folder.
        ProcessError: if memory ran out, or a process was killed.
        WriteError: for a file that cannot be written (a full disk); the last checkpoint is kept.
    """
    if plan.done:
        return results.read(plan.folder.result, KIND)
    # Before anything uses CUDA; processes that are started inherit it.
    if plan.accelerator == "gpu":
        prepare_cublas()
    to = asked()
    work = (plan.config.as_dict(), plan.folder.path, plan.images, command, on_step, to)
    with listening(to):
        try:
            if plan.devices == 1:
                alone(plan.accelerator).launch(_work, *work)
            else:
                together(plan.accelerator, plan.devices, to, _work, *work)
        except ProcessError as error:
            raise ProcessError(f"{error} {_go_on(plan.folder)}") from None
        except KeyboardInterrupt as stop:
            if isinstance(stop, StoppedError):
                raise
            raise StoppedError(f"stopped at once. {_go_on(plan.folder)}", to.value or signal.SIGINT) from None
    return results.read(plan.folder.result, KIND)


def _go_on(folder: Folder) -> str:
    """Tells, after an end without a last save, what the folder holds."""
    if folder.checkpoint.exists():
        return f"{folder.path} holds the last checkpoint: the same command goes on after it."
    return f"There is no checkpoint yet in {folder.path}: the same command begins anew."


def _work(
    here: Any,
    config: Mapping[str, Any],
    out: Path,
    images: str,
    command: str,
    on_step: OnStep | None,
    to: Asked,
) -> None:
    """Trains in one process; gets the configuration as plain data, as Lightning does not pass on frozen dataclasses."""
    cuda = [here.device] if here.device.type == "cuda" else []
    folder = Folder(out)
    with torch.random.fork_rng(devices=cuda), folder.owned() if here.global_rank == 0 else nullcontext():
        run = Run(here, TrainConfig.decoded(config), folder, images, to)
        try:
            run.finish(command, on_step)
        except (MemoryError, RuntimeError) as error:
            if (lost := _lost(error)) is None:
                raise
            raise ProcessError(lost) from error


def _lost(error: Exception) -> str | None:
    """Returns a message if memory ran out or a worker was killed; None for any other error."""
    text = str(error)
    if text.startswith("DataLoader worker"):
        return f"a process that prepares pairs is gone ({text.splitlines()[0]}); with lower data.workers it needs less."
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return (
            f"there is not enough memory ({text.splitlines()[0] if text else 'MemoryError'}). Take a smaller "
            f"recipe.batch, with as many times recipe.accumulate, or a smaller data.patch (with recipe.progressive: "
            f"those of the stage), in another folder."
        )
    return None


class Run:
    """A run in one of its processes.

    Args:
        here: this process's Fabric.
        config: what to train, and how.
        folder: folder of the run; if it holds a checkpoint, the run resumes there.
        images: stamp of all images, see ``exda_primitives.workbench.data.check``; None if unknown.
        to: holds the number of a signal that came; None if nothing listens to signals.
    """

    def __init__(
        self, here: Any, config: TrainConfig, folder: Folder, images: str | None = None, to: Asked | None = None
    ) -> None:
        self.here, self.config, self.folder, self.images = here, config, folder, images
        net = here.to_device(build(config, folder.network(config)).net)
        self.data = open_data(config, channels(net))
        self.steps = length(config, len(self.data.training), here.world_size)
        self.state = State(net, config.recipe)
        self.legs: list[dict[str, Any]] = []
        self.trackers: list[Tracker] = []
        self.saved: int | None = None
        if folder.checkpoint.exists():
            held = read_checkpoint(folder.checkpoint)
            self.state.restore(held)
            self.legs, self.saved = held["legs"], self.state.step
        self.step = Step(here, here.setup_module(net, move_to_device=False), self.state, config.recipe, self.steps)
        self.pauses = Pauses(here, asked() if to is None else to)
        self.log = Log(quiet=here.global_rank != 0, steps=self.steps)

    def finish(self, command: str, on_step: OnStep | None) -> None:
        """Trains to the end and writes the result, see ``train``."""
        leg = self._begin_leg()
        start = time.perf_counter()
        self._stop_if(self.pauses.check())
        try:
            with (
                deterministic(self.here.device) as leg["indeterminate"],
                self.log.progress(self.state.step) as advance,
                self._tracking(),
                closing(self._steps()) as steps,
            ):
                for done in steps:
                    leg["seconds"] = round(time.perf_counter() - start, 3)
                    pause = self._after(done)
                    advance(self.state.step)
                    if on_step is not None:
                        on_step(self.state)
                    self._stop_if(pause)
        except DivergedError as error:
            raise DivergedError(f"{error} {self._kept()}") from None
        if self.here.global_rank == 0:
            self._write_result(command)

    def _begin_leg(self) -> dict[str, Any]:
        state = self.state
        now = circumstances(self.here.device, self.here.world_size, self.data.training, self.images)
        leg = {"after_step": state.step, "seconds": 0.0, **now, "not_bit_for_bit": []}
        if self.legs:
            leg["not_bit_for_bit"] = resume_mismatches(self.legs[-1], leg)
            reasons = "; ".join(leg["not_bit_for_bit"])
            how = f"but not bit for bit: {reasons}" if reasons else "bit for bit"
            self.log.say(f"goes on after step {state.step}, {how}")
            if self.here.global_rank == 0:
                # The run may have been killed after it wrote the checkpoint and before the weights.
                with self._writing():
                    write_network(state.result, self.folder.weights)
        else:
            leg |= begins_with(self.config)
        self.legs.append(leg)
        return leg

    @contextmanager
    def _tracking(self) -> Iterator[None]:
        """Opens the trackers, in the first process only, and closes them after the block."""
        failed = True
        try:
            if self.here.global_rank == 0:
                with self._writing():
                    for tracker in open_trackers(self.folder.path, self.config, self.state.step, self.legs):
                        self.trackers.append(tracker)
            yield
            failed = False
        finally:
            # After another error, one that closing raises is not the one to tell.
            with suppress(OSError) if failed else self._writing():
                for tracker in self.trackers:
                    tracker.close(failed=failed)

    def _stop_if(self, pause: Pause) -> None:
        if pause.signal and self.state.step < self.steps:
            name = signal.Signals(pause.signal).name
            done = f"after step {self.state.step} of {self.steps}" if self.state.step else "before the first step"
            raise StoppedError(f"stopped by {name} {done}. {self._kept()} The same command goes on.", pause.signal)

    def _kept(self) -> str:
        kept = "no checkpoint yet" if self.saved is None else f"the checkpoint of step {self.saved}"
        return f"{self.folder.path} holds {kept}."

    def _steps(self) -> Generator[Done, None, None]:
        recipe, todo, device = self.config.recipe, range(self.state.step, self.steps), self.here.device
        stages = stages_of(self.config, self.steps)
        order = Order(
            len(self.data.training),
            recipe.seed,
            todo,
            stages=stages,
            accumulate=recipe.accumulate,
            rank=self.here.global_rank,
            world=self.here.world_size,
        )
        loader = DataLoader(
            AtPlaces(self.data.training),
            batch_sampler=order,
            num_workers=self.config.data.workers,
            worker_init_fn=in_worker,
            collate_fn=batched,
            pin_memory=device.type == "cuda",
        )
        with batches_of(loader) as batches:

            def passes() -> Iterator[Pair]:
                for batch in islice(batches, recipe.accumulate):
                    if isinstance(batch, ExDAError):
                        raise batch
                    yield Pair(*(part.to(device, non_blocking=True) for part in batch))

            begins = {stage.begin: stage for stage in stages} if recipe.progressive else {}
            for step in todo:
                if step in begins:
                    self.log.say(f"step {step}: {begins[step]}")
                yield self.step(passes())

    def _after(self, done: Done) -> Pause:
        recipe, state, last = self.config.recipe, self.state, self.state.step == self.steps
        psnr = None
        if self.data.validation is not None and (last or state.step % (recipe.validate_every or self.steps) == 0):
            psnr, sheet = validate(self.here, state.result, self.data.validation, recipe)
            if sheet is not None and self.here.global_rank == 0:
                self._show(sheet)
        if last or psnr is not None or state.step % recipe.log_every == 0:
            self._log(done, psnr)
        elif self.log.is_due():
            self.log.step(state.step, sum(state.window) / len(state.window))
        pause = self.pauses.check()
        if last or pause.save or pause.signal or state.step % recipe.save_every == 0:
            self._save()
        return pause

    def _log(self, done: Done, psnr: float | None) -> None:
        state = self.state
        mean = sum(state.window) / len(state.window)
        # JSON has no infinity: the norm of a float16 step that overflowed.
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
        self.log.step(state.step, mean, psnr)
        values = {f"train/{name}": line[name] for name in ("loss", "learning_rate", "gradient_norm")}
        values["validation/psnr"] = psnr
        with self._writing():
            for tracker in self.trackers:
                tracker.log(state.step, {name: value for name, value in values.items() if value is not None})

    def _show(self, sheet: Tensor) -> None:
        with self._writing():
            write_sheet(self.folder.sheet, sheet)
            for tracker in self.trackers:
                tracker.show(self.state.step, "validation/images", sheet)

    def _save(self) -> None:
        start = time.monotonic()
        if self.here.global_rank == 0:
            with self._writing():
                # A run that goes on after the checkpoint does not log again what comes before it.
                for tracker in self.trackers:
                    tracker.flush()
                # The checkpoint first: everything else can be made from it.
                write_checkpoint(self.folder.checkpoint, self.state, self.config, self.legs)
                self.saved = self.state.step
                write_network(self.state.result, self.folder.weights)
        # No process goes on before the checkpoint is written.
        self.here.barrier()
        self.saved = self.state.step
        self.pauses.saved(time.monotonic() - start)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise WriteError(
                f"{self.folder.path}: cannot be written to ({why}). {self._kept()} Once that is fixed, the same "
                f"command goes on."
            ) from error

    def _write_result(self, command: str) -> None:
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
        with self._writing():
            draw(state.history, folder.plot)
            # Last: its existence marks the run as done.
            results.write(folder.result, result)


def trained_network(plan: Plan) -> nn.Module:
    """Returns the network of a run's last checkpoint (its moving average, if there is one), with LoRA unmerged.

    It is on the CPU, or on the GPU if the run was there, and replaces the one in ``plan.network``.
    """
    state = State(plan.network.net, plan.config.recipe)
    state.restore(read_checkpoint(plan.folder.checkpoint))
    return state.result.to("cuda" if plan.accelerator == "gpu" else "cpu")


def write_network(net: nn.Module, path: Path) -> None:
    """Writes a network, patched or not, atomically, as ``exda.models.create(checkpoint=...)`` reads it.

    LoRA is merged into the weights of its layers.
    """
    net = without_lora(net, merge=True)
    if is_patched(net):
        save(net, path, whole=True)
    else:
        write_safetensors(state_of(net, whole=True), {}, path)
