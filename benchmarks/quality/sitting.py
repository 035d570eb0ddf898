"""A sitting: trains what is missing until the time is up."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import exda_primitives as exda
from exda_primitives import results
from exda_primitives.data import open_pictures
from exda_primitives.errors import ConfigError, DivergedError
from exda_primitives.files import fingerprint
from exda_primitives.training import prepare, train
from exda_primitives.training.plan import Plan
from exda_primitives.training.state import State

from .configs import configuration, model_arguments
from .forms import BASE, HOST, WIDENED, Form, Job, Setting
from .pace import pace, steps_in_time
from .scores import PROTOCOL_LINE, SEED, Photographs

KIND = "quality"

_KEPT = ("paces",)
"""What a result holds beside its envelope."""


class TimeUpError(Exception):
    """The sitting is over; the checkpoint was just written."""


@dataclass(frozen=True)
class Sources:
    """The pictures.

    Attributes:
        train: crops, a folder, zip or npz.
        test: photographs, likewise.
    """

    train: Path
    test: Path

    def described(self) -> dict[str, Any]:
        """Plain data without a path: names and contents."""
        return {
            name: {"name": path.name, "sha256": fingerprint(path), "pictures": len(open_pictures(path))}
            for name, path in (("train", self.train), ("test", self.test))
        }


def shared_config(form: Form, sources: Sources) -> dict[str, Any]:
    """What all runs of a result share."""
    return {
        "form": form.name,
        "model": {"name": "restormer", **form.model},
        "widened": {"ffn_expansion_factor": model_arguments(form, WIDENED)["ffn_expansion_factor"]},
        "data": {name: list(each) if isinstance(each, tuple) else each for name, each in form.data.items()},
        "recipe": dict(form.recipe),
        "test": {"crop": form.crop, "seed": SEED, "protocol": PROTOCOL_LINE},
        "pictures": sources.described(),
    }


class Sitting:
    """What is needed from the first job to the last.

    Args:
        form: of the benchmark.
        sources: the pictures.
        path: of the result.
        work: folder of the run at hand; it is empty when all are done.
        accelerator: ``"cpu"`` or ``"gpu"``.
        command: for the result, without paths of this machine.
        console: to print to.

    Raises:
        ConfigError: for a result of another configuration or machine; nothing was changed.
        ImageError: for pictures that cannot be read.
    """

    def __init__(
        self, form: Form, sources: Sources, path: Path, work: Path, accelerator: str, command: str, console: Console
    ) -> None:
        self.form, self.sources, self.path, self.work = form, sources, path, work
        self.accelerator, self.console = accelerator, console
        device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        held = results.read(path, KIND) if path.exists() else {}
        begun = results.begin(path, KIND, shared_config(form, sources), [], command, device)
        self.result = {**begun, **{key: held.get(key, {}) for key in _KEPT}}
        self.photographs = Photographs(open_pictures(sources.test), form.crop)

    def missing(self) -> list[Job]:
        """The jobs that are not done, in their order.

        Raises:
            ConfigError: for one that was done with other changes under the same name.
        """
        done = {run["name"]: run for run in self.result["runs"]}
        jobs = list(self.form.jobs())
        for job in jobs:
            if job.name in done and done[job.name]["changes"] != changes(job.setting):
                raise ConfigError(
                    f"{self.path}: {job.name} was done with {done[job.name]['changes']}, here it is "
                    f"{changes(job.setting)}; give the setting another name, or the result another path"
                )
        return [job for job in jobs if job.name not in done]

    def work_off(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Trains and scores one job after the other.

        Args:
            seconds: after which to stop, at the next checkpoint.
            clock: that says when.

        Returns:
            Whether nothing is left to do.

        Raises:
            ConfigError: for a run of another configuration in the folder, and where another sitting has added runs.
            ImageError: for pictures that cannot be read, or are too small.
        """
        end = clock() + seconds
        missing = self.missing()
        if missing:
            self.photographs.check()
        total = len(list(self.form.jobs()))
        for number, job in enumerate(missing, total - len(missing) + 1):
            if clock() >= end:
                return False
            left = "" if math.isinf(end) else f", {(end - clock()) / 60:.1f} minutes left"
            self._say(f"[{number}/{total}] {job.name}{left}")
            try:
                run = self._run(job, lambda: clock() >= end)
            except TimeUpError:
                return False
            self.result["runs"].append(run)
            self._write()
            shutil.rmtree(self.work / job.name)
        return True

    def _run(self, job: Job, is_over: Callable[[], bool]) -> dict[str, Any]:
        told = configuration(self.form, job, str(self.sources.train), self._steps(job))
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
            trained = self._trained(plan, is_over)
        except DivergedError as error:
            why = str(error).replace(str(plan.folder.path), "the folder of the run")
            self._say(f"{job.name}: {why}")
            return {**record, "diverged": why, "scores": None}
        net = self._network(plan)
        scores = self.photographs.scored(net, told.data.degradations)
        told_apart = self.photographs.told_apart(net, told.data.degradations)
        mean = sum(sum(each["psnr"]) / len(each["psnr"]) for each in scores.values()) / len(scores)
        self._say(f"{job.name}: {mean:.3f} dB")
        return {**record, **trained, "diverged": None, "scores": scores, "told_apart": told_apart}

    def _trained(self, plan: Plan, is_over: Callable[[], bool]) -> dict[str, Any]:
        every = plan.config.recipe.save_every

        def on_step(state: State) -> None:
            if state.step % every == 0 and state.step < plan.steps and is_over():
                raise TimeUpError

        run = train(plan, on_step=on_step)["runs"][0]
        legs = run["legs"]
        return {
            "parameters": run["parameters"],
            "loss": run["history"][-1]["loss"],
            "legs": [{key: leg[key] for key in ("after_step", "seconds", "not_bit_for_bit")} for leg in legs],
            "machine": legs[-1]["machine"],
        }

    def _network(self, plan: Plan) -> torch.nn.Module:
        net = exda.models.create("restormer", plan.folder.weights)
        return net.to("cuda" if self.accelerator == "gpu" else "cpu")

    def _steps(self, job: Job) -> int | None:
        """Of equal time; None for those of the recipe."""
        if job.budget == "steps":
            return None
        name = job.setting.name
        if name not in self.result["paces"]:
            # With all arms of the form, so that it is measured once whatever is done first.
            arms = dict.fromkeys(each.arm for each in self.form.jobs() if each.setting.name == name)
            self._say(f"{name}: measuring what a step of each arm costs")
            configs = {
                arm: configuration(self.form, Job(job.setting, arm, 0, "steps"), str(self.sources.train))
                for arm in dict.fromkeys((HOST, *arms))
            }
            self.result["paces"][name] = pace(configs, self.accelerator)
            self._write()
        host = configuration(self.form, Job(job.setting, HOST, job.seed, "steps"), str(self.sources.train))
        assert host.recipe.steps is not None
        return steps_in_time(host.recipe.steps, self.result["paces"][name]["ratio"][job.arm])

    def _write(self) -> None:
        """Raises ConfigError where another sitting has added runs meanwhile, which would be lost."""
        if self.path.exists():
            ours = {run["name"] for run in self.result["runs"]}
            theirs = [run["name"] for run in results.read(self.path, KIND)["runs"] if run["name"] not in ours]
            if theirs:
                raise ConfigError(
                    f"{self.path}: another sitting has added {theirs[0]} meanwhile; nothing was written. Start again: "
                    f"what was trained here is in {self.work}"
                )
        self.result["seeds"] = sorted({run["seed"] for run in self.result["runs"]})
        results.write(self.path, self.result)

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def changes(setting: Setting) -> dict[str, Any]:
    """Of a setting, as a result holds them; empty for the base."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {} if setting.name == BASE else {**plain(setting.training), **{"primitives": plain(setting.primitives)}}
