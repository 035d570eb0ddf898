"""A session chooses learning rates and trains what is missing until the time is up."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from torch import nn

import exda_primitives as exda
from benchmarks.quality.configs import model_arguments
from benchmarks.quality.forms import WIDENED, Job
from benchmarks.quality.pace import pace
from benchmarks.quality.scores import SEED, Photographs
from benchmarks.quality.session import Session, Sources
from exda_primitives.errors import DivergedError
from exda_primitives.workbench.data import DEGRADATIONS
from exda_primitives.workbench.evaluation.protocols import PLAIN
from exda_primitives.workbench.shared.files import fingerprint
from exda_primitives.workbench.training import TrainConfig, prepare
from exda_primitives.workbench.training.plan import Plan, parameters
from exda_primitives.workbench.training.run import trained_network

from .configs import Starts, configuration, rank
from .forms import ARMS, Continued
from .host import widened_weights
from .taken_out import bytes_of, gives_back

KIND = "continued"
PACE_STEPS, PACE_TURNS = 2, 5


class ContinuedSession(Session):
    """A ``benchmarks.quality.session.Session`` whose networks start from a trained host.

    Args:
        form: the benchmark's form.
        host: the host's weight file, in the folder ``work``.
        sources, path, work, accelerator, command, console: as in ``Session``.

    Raises:
        ConfigError, ImageError: as ``Session`` does.
    """

    kind: ClassVar[str] = KIND
    kept = ("paces", "searched", "untrained")
    form: Continued

    def __init__(
        self,
        form: Continued,
        host: Path,
        sources: Sources,
        path: Path,
        work: Path,
        accelerator: str,
        command: str,
        console: Console,
    ) -> None:
        self.starts = Starts(host, widened_weights(form, host))
        super().__init__(form, sources, path, work, accelerator, command, console)
        unknown = {name: each for name, each in form.host.degradations.items() if name not in DEGRADATIONS}
        # The demo's mixed degradation is not one of the library's: the scores have to know it by name.
        self.photographs = Photographs(self.photographs.images, form.crop, unknown)

    def shared(self) -> dict[str, Any]:
        """Returns the configuration that all runs of a result share, as plain data."""
        form = self.form
        arms = [ARMS[name] for name in dict.fromkeys(job.arm for job in form.jobs())]
        return {
            "form": form.name,
            "host": {
                "name": form.host.name,
                "sha256": fingerprint(self.starts.host),
                "model": {"name": "restormer", **form.model},
                "degradations": list(form.host.degradations),
                "phases": [asdict(phase) for phase in form.host.phases],
            },
            "widened": {"ffn_expansion_factor": model_arguments(form, WIDENED)["ffn_expansion_factor"]},
            "ranks": {
                name: rank(form.model, arm) for name, arm in ARMS.items() if arm in arms and arm.lora is not None
            },
            "data": dict(form.data),
            "recipe": dict(form.recipe),
            "search": asdict(form.search),
            "test": {"crop": form.crop, "seed": SEED, "protocol": PLAIN.note},
            "pictures": self.sources.described(),
        }

    def told(self, job: Job) -> TrainConfig:
        """Returns a job's training configuration, after measuring the arms' pace and choosing the learning rate."""
        if not self.result["paces"]:
            self.say("measuring what a step of each arm costs")
            jobs = {each.arm: each for each in self.form.jobs() if each.setting == job.setting}
            # Any learning rate does: the time of a step does not depend on it.
            configs = {arm: self._configuration(each, {"learning_rate": 1e-3}) for arm, each in jobs.items()}
            self.result["paces"] = pace(configs, self.accelerator, steps=PACE_STEPS, turns=PACE_TURNS)
            self.write()
        return self._configuration(job, {"learning_rate": self.rate(job.arm)})

    def measured(self, job: Job, plan: Plan) -> dict[str, Any]:
        """Returns what is measured on a trained network, as plain data; ``scores`` holds its scores by degradation."""
        own, degradations = list(self.form.host.degradations), plan.config.data.degradations
        host = exda.models.create("restormer", self.starts.host)
        host.to("cuda" if self.accelerator == "gpu" else "cpu")
        self._score_untrained(host, [*degradations, *(own if self.form.keeps else [])])
        net = trained_network(plan)
        found = {
            "learning_rate": plan.config.recipe.learning_rate,
            "trained_parameters": parameters(plan.network.net, trained=True),
            "scores": self.photographs.scored(net, degradations),
        }
        if not self.form.keeps:
            # As large as the patches that the network has seen: does it restore larger images better in pieces?
            return {**found, "tiled": self.photographs.scored(net, degradations, plan.config.data.patch)}
        shown = [self.photographs.degraded(name, 0) for name in (*degradations, *own)]
        return {
            **found,
            "own": self.photographs.scored(net, own),
            "given_back": gives_back(net, host, shown),
            "bytes": bytes_of(plan.network.net),
        }

    def rate(self, arm: str) -> float:
        """Returns an arm's learning rate by the form's search, with the short runs that are still missing."""
        search = self.form.search
        arms = search.together or (arm,)
        losses = {rate: sum(self._searched(each, rate) for each in arms) for rate in search.rates[ARMS[arm].train]}
        return min(losses, key=lambda rate: losses[rate])

    def _searched(self, arm: str, rate: float) -> float:
        """Returns the loss at the end of a short run, from the result if it is there; infinite if it diverged."""
        held = self.result["searched"].setdefault(arm, {})
        if f"{rate:g}" not in held:
            search = self.form.search
            job = Job(self.form.studies[0].setting, arm, search.seed, "steps")
            self.say(f"{job.name}: {search.steps} steps at {rate:g}")
            told = self._configuration(job, {"learning_rate": rate, "steps": search.steps})
            plan = prepare(told, self.work / f"{job.name}-rate{rate:g}", accelerator=self.accelerator)
            try:
                held[f"{rate:g}"] = self.trained(plan)["loss"]
            except DivergedError:
                held[f"{rate:g}"] = None
            self.write()
            shutil.rmtree(plan.folder.path)
        loss: float | None = held[f"{rate:g}"]
        return math.inf if loss is None else loss

    def _configuration(self, job: Job, changes: dict[str, Any]) -> TrainConfig:
        return configuration(self.form, job, str(self.sources.train), self.starts, changes)

    def _score_untrained(self, host: nn.Module, degradations: list[str]) -> None:
        missing = [name for name in degradations if name not in self.result["untrained"]]
        if missing:
            self.result["untrained"] |= self.photographs.scored(host, missing)
