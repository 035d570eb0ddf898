"""A session trains what is missing until the time is up."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from torch import nn

from exda_primitives.errors import ConfigError, DivergedError
from exda_primitives.workbench.data import open_images
from exda_primitives.workbench.evaluation.protocols import PLAIN
from exda_primitives.workbench.shared import results
from exda_primitives.workbench.shared.files import fingerprint
from exda_primitives.workbench.training import TrainConfig, prepare, train
from exda_primitives.workbench.training.plan import Plan
from exda_primitives.workbench.training.run import trained_network
from exda_primitives.workbench.training.state import State

from .configs import configuration, model_arguments
from .forms import BASE, HOST, WIDENED, BenchmarkConfig, Job, Setting
from .pace import pace, steps_in_time
from .scores import SEED, Photographs

KIND = "quality"


class TimeUpError(Exception):
    """Raised just after a checkpoint was written, when the session's time is up."""


@dataclass(frozen=True)
class Sources:
    """Where the images are.

    Attributes:
        train: folder, zip or npz of the training crops.
        test: folder, zip or npz of the test photographs.
    """

    train: Path
    test: Path

    def described(self) -> dict[str, Any]:
        """Returns plain data without paths: for each source its name, SHA-256 and number of images."""
        return {
            name: {"name": path.name, "sha256": fingerprint(path), "pictures": len(open_images(path))}
            for name, path in (("train", self.train), ("test", self.test))
        }


def shared_config(form: BenchmarkConfig, sources: Sources) -> dict[str, Any]:
    """Returns the configuration that all runs of a result share, as plain data."""
    return {
        "form": form.name,
        "model": {"name": "restormer", **form.model},
        "widened": {"ffn_expansion_factor": model_arguments(form, WIDENED)["ffn_expansion_factor"]},
        "data": {name: list(each) if isinstance(each, tuple) else each for name, each in form.data.items()},
        "recipe": dict(form.recipe),
        "test": {"crop": form.crop, "seed": SEED, "protocol": PLAIN.note},
        "pictures": sources.described(),
    }


class Session:
    """Trains and scores the jobs of a form, and keeps the result.

    Several processes with one result file and one working folder share the jobs, each taking whichever is next.

    Another benchmark subclasses it with its own ``kind`` and overrides whatever differs of ``shared``, ``told``,
    ``trained`` and ``measured``.

    Args:
        form: the benchmark's form.
        sources: the images.
        path: file of the result.
        work: folder for the runs in progress.
        accelerator: ``"cpu"`` or ``"gpu"``.
        command: the command that the result names, without paths of this machine.
        console: where progress is printed.

    Raises:
        ConfigError: for a result of another configuration or machine; nothing was changed.
        ImageError: for images that cannot be read.
    """

    kind: ClassVar[str] = KIND
    kept: ClassVar[Sequence[str]] = ("paces",)
    """Names of the entries that a result has in addition to its envelope."""

    def __init__(
        self,
        form: BenchmarkConfig,
        sources: Sources,
        path: Path,
        work: Path,
        accelerator: str,
        command: str,
        console: Console,
    ) -> None:
        self.form, self.sources, self.path, self.work = form, sources, path, work
        self.accelerator, self.console = accelerator, console
        device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        held = results.read(path, self.kind) if path.exists() else {}
        begun = results.begin(path, self.kind, self.shared(), [], command, device)
        self.result = {**begun, **{key: held.get(key, {}) for key in self.kept}}
        self.photographs = Photographs(open_images(sources.test), form.crop)
        self._is_over: Callable[[], bool] = lambda: False
        self._locks = work / "locks"

    def shared(self) -> dict[str, Any]:
        """Returns the configuration that all runs of a result share, as plain data."""
        return shared_config(self.form, self.sources)

    def told(self, job: Job) -> TrainConfig:
        """Returns a job's training configuration, after measuring what it depends on if that is missing.

        Raises:
            TimeUpError: if the time is up before that is measured.
        """
        return configuration(self.form, job, str(self.sources.train), self._steps(job))

    def measured(self, job: Job, plan: Plan) -> dict[str, Any]:
        """Returns what is measured on a trained network, as plain data; ``scores`` holds its scores by degradation."""
        net, degradations = trained_network(plan), plan.config.data.degradations
        scores = self.photographs.scored(net, degradations)
        return {"scores": scores, "told_apart": self.photographs.told_apart(net, degradations)}

    def missing(self) -> list[Job]:
        """Returns the jobs that are not done yet, in their order.

        Raises:
            ConfigError: for a job that was done under the same name with other changes.
        """
        done = {run["name"]: run for run in self.result["runs"]}
        jobs = list(self.form.jobs())
        for job in jobs:
            if job.name in done and done[job.name]["changes"] != changes(job.setting):
                raise ConfigError(
                    f"{self.path}: {job.name} was done with {done[job.name]['changes']}, but the form now has "
                    f"{changes(job.setting)}; give the setting another name, or the result another path"
                )
        return [job for job in jobs if job.name not in done]

    def run_pending(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Trains and scores one missing job after another.

        Args:
            seconds: time after which to stop at the next checkpoint.
            clock: returns the time in seconds.

        Returns:
            Whether all jobs are done.

        Raises:
            ConfigError: for a run of another configuration in the working folder.
            ImageError: for images that cannot be read or are too small.
        """
        end = clock() + seconds
        self._is_over = lambda: clock() >= end
        if self.missing():
            self.photographs.check()
        total = len(list(self.form.jobs()))
        for job in self.missing():
            if self._is_over():
                return False
            with self._claimed(job) as claimed:
                if not claimed:
                    continue
                left = "" if math.isinf(end) else f", {(end - clock()) / 60:.1f} minutes left"
                self.say(f"[{total - len(self.missing()) + 1}/{total}] {job.name}{left}")
                try:
                    run = self._run(job)
                except TimeUpError:
                    return False
                self.result["runs"].append(run)
                # The run is in the result before its checkpoints are deleted.
                self.write()
                shutil.rmtree(self.work / job.name)
        return not self.missing()

    @contextmanager
    def _claimed(self, job: Job) -> Iterator[bool]:
        """Yields whether a job is left for this process: no other process has done it or is at it."""
        self._locks.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self._locks / job.name, timeout=0).acquire()
        except Timeout:
            yield False
            return
        with lock:
            self._take_over()
            yield job in self.missing()

    def _run(self, job: Job) -> dict[str, Any]:
        with FileLock(self._locks / "measured"):
            # Of several processes, one measures what all of them need.
            self._take_over()
            told = self.told(job)
        plan = prepare(told, self.work / job.name, accelerator=self.accelerator)
        record = {
            "name": job.name,
            "setting": job.setting.name,
            "what": job.setting.what,
            "changes": changes(job.setting),
            "budget": job.budget,
            "arm": job.arm,
            "seed": job.seed,
            "steps": told.recipe.steps,
        }
        try:
            trained = self.trained(plan, self.form.marks)
        except DivergedError as error:
            # Results name no paths of this machine.
            why = str(error).replace(str(plan.folder.path), "the folder of the run")
            self.say(f"{job.name}: {why}")
            return {**record, "diverged": why, "scores": None}
        measured = self.measured(job, plan)
        mean = sum(sum(each["psnr"]) / len(each["psnr"]) for each in measured["scores"].values())
        self.say(f"{job.name}: {mean / len(measured['scores']):.3f} dB")
        return {**record, **trained, "diverged": None, **measured}

    def trained(self, plan: Plan, marks: Sequence[int] = ()) -> dict[str, Any]:
        """Trains a network to the end.

        Args:
            plan: the prepared training.
            marks: steps after which the test photographs are restored and scored.

        Returns:
            Plain data: number of parameters, last loss, legs of the training, machine, and scores at the marks.

        Raises:
            DivergedError: if the training meets NaN or infinity.
            TimeUpError: if the time is up before the end.
        """
        every = plan.config.recipe.save_every
        path, degradations = plan.folder.path / "curve.json", plan.config.data.degradations
        curve: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

        def mark(step: int, net: nn.Module) -> None:
            if step in marks and str(step) not in curve:
                curve[str(step)] = self.photographs.scored(net, degradations)
                path.write_text(json.dumps(curve))

        def on_step(state: State) -> None:
            if state.step in marks:
                # A copy: scoring switches to evaluation mode, in which the training would go on.
                mark(state.step, deepcopy(state.result))
            if state.step % every == 0 and state.step < plan.steps and self._is_over():
                raise TimeUpError

        if plan.begun is not None:
            # The last session may have stopped after the checkpoint of a mark and before its scores.
            mark(plan.begun.step, trained_network(plan))
        run = train(plan, on_step=on_step)["runs"][0]
        legs = run["legs"]
        return {
            "parameters": run["parameters"],
            "loss": run["history"][-1]["loss"],
            "legs": [{key: leg[key] for key in ("after_step", "seconds", "not_bit_for_bit")} for leg in legs],
            "machine": legs[-1]["machine"],
            **({"curve": curve} if marks else {}),
        }

    def _steps(self, job: Job) -> int | None:
        """Returns the number of steps with a budget of equal time; None with one of steps, for the recipe's."""
        if job.budget == "steps":
            return None
        name = job.setting.name
        if name not in self.result["paces"]:
            # All arms of the setting at once, so that the pace is measured once whichever job comes first.
            arms = dict.fromkeys(each.arm for each in self.form.jobs() if each.setting.name == name)
            self.say(f"{name}: measuring what a step of each arm costs")
            configs = {
                arm: configuration(self.form, Job(job.setting, arm, 0, "steps"), str(self.sources.train))
                for arm in dict.fromkeys((HOST, *arms))
            }
            self.result["paces"][name] = pace(configs, self.accelerator)
            self.write()
        host = configuration(self.form, Job(job.setting, HOST, job.seed, "steps"), str(self.sources.train))
        assert host.recipe.steps is not None
        return steps_in_time(host.recipe.steps, self.result["paces"][name]["ratio"][job.arm])

    def write(self) -> None:
        """Writes the result, with what other processes have added to the file."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self._locks / "result"):
            self._take_over()
            self.result["seeds"] = sorted({run["seed"] for run in self.result["runs"]})
            results.write(self.path, self.result)

    def _take_over(self) -> None:
        """Takes over what other processes have added to the file."""
        if self.path.exists():
            theirs = results.read(self.path, self.kind)
            names = {run["name"] for run in theirs["runs"]}
            self.result["runs"] = theirs["runs"] + [run for run in self.result["runs"] if run["name"] not in names]
            for key in self.kept:
                self.result[key] = _united(self.result[key], theirs.get(key, {}))

    def say(self, line: str) -> None:
        """Prints a line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _united(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of both, theirs where both have one, and of mappings that both have likewise."""
    both = {name: each for name, each in theirs.items() if isinstance(each, Mapping) and name in ours}
    return {**ours, **theirs, **{name: _united(ours[name], each) for name, each in both.items()}}


def changes(setting: Setting) -> dict[str, Any]:
    """Returns a setting's changes as a result holds them; empty for the base."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {} if setting.name == BASE else {**plain(setting.training), **{"primitives": plain(setting.primitives)}}
