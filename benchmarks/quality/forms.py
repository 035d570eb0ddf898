"""The forms of the benchmark: networks, recipes and seeds, and the variations that each change one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from exda_primitives.workbench.data.degradations.composition import CDD11

Budget = Literal["steps", "time"]
"""``"steps"``: as many steps as the host; ``"time"``: as many steps as fit into the time of the host's steps."""

HOST = "host"
WIDENED = "widened"
PRIMITIVES: Mapping[str, Mapping[str, Any]] = {
    "both, identity": {"tokens": 1, "value": "residual", "init": "identity"},
    "both, paper": {"tokens": 1, "value": "residual", "init": "paper"},
    "value": {"tokens": 0, "value": "residual", "init": "identity"},
    "tokens": {"tokens": 1, "value": "none", "init": "identity"},
}
"""Arm -> options of the primitives that are patched into every attention of the host."""

ARMS = (HOST, "both, identity", WIDENED, "both, paper", "value", "tokens")
"""All arms, in the order in which they are trained."""

COMPARED = "both, identity"
"""The arm that variations are trained with, and whose number of parameters the widened host has."""

BASE = "base"
"""Name of the setting that changes nothing."""


@dataclass(frozen=True)
class Setting:
    """Changes to a form's base.

    Attributes:
        name: its name in the result.
        what: description of the changes, for the tables.
        training: entries that override the form's ``data`` and ``recipe``.
        primitives: options that override the arm's.
    """

    name: str
    what: str
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primitives: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A setting, and the networks that are trained in it.

    Attributes:
        setting: changes to the base.
        arms: the arms, in their order. With equal time there is no host: it is the host of equal steps.
        seeds: the seeds; all arms are trained with one seed before the next, so that comparisons are complete early.
        budget: see ``Budget``.
    """

    setting: Setting
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Budget = "steps"


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        setting: changes to the base.
        arm: one of ``ARMS``.
        seed: seed of the weights, the data's order and the degradations.
        budget: see ``Budget``.
    """

    setting: Setting
    arm: str
    seed: int
    budget: Budget

    @property
    def name(self) -> str:
        """A unique name that can also name a folder."""
        return "-".join((self.setting.name, self.budget, self.arm.replace(", ", "-"), f"seed{self.seed}"))


@dataclass(frozen=True)
class BenchmarkConfig:
    """A form of the benchmark.

    Attributes:
        name: key in ``FORMS``; ``"gpu"`` runs on a GPU, the others on the CPU.
        model: arguments of ``Restormer``.
        data: ``data`` of the training configuration, without its source.
        recipe: ``recipe`` of the training configuration; ``steps`` are the host's.
        crop: side in pixels of the square in the middle of each test photograph that is restored; None for all of it.
        studies: the studies, in the order in which they are trained.
        marks: steps before the last one after which the test photographs are restored as well; checkpoints are written
            at these steps.
    """

    name: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    crop: int | None
    studies: tuple[Study, ...]
    marks: tuple[int, ...] = ()

    def jobs(self) -> Iterator[Job]:
        """Yields all jobs in the order in which they are trained."""
        for study in self.studies:
            for seed in study.seeds:
                for arm in study.arms:
                    yield Job(study.setting, arm, seed, study.budget)


def _all(setting: Setting, seeds: tuple[int, ...]) -> tuple[Study, Study]:
    return Study(setting, ARMS, seeds), _in_time(setting, seeds)


def _in_time(setting: Setting, seeds: tuple[int, ...]) -> Study:
    # No host: the host of equal time is the host of equal steps.
    return Study(setting, tuple(arm for arm in ARMS if arm != HOST), seeds, "time")


def _varied(setting: Setting, seeds: tuple[int, ...]) -> Study:
    """Returns a variation's study; it has hosts of its own only if it changes the training as well."""
    return Study(setting, (HOST, COMPARED, WIDENED) if setting.training else (COMPARED,), seeds)


_SEEDS = (0, 1, 2)
_BASE = Setting(BASE, "the base")
_THREE = ("noise25", "rain", "haze")
_MIX = Setting("mix", "the 11 degradations of CDD-11 in place of the three", {"data": {"degradations": CDD11}})
_DECODER = Setting("decoder", "primitives in the decoder alone", primitives={"include": ("decoder",)})
_LATENT = Setting("latent", "primitives in the latent level alone", primitives={"include": ("latent",)})
_K4 = Setting("tokens4", "K = 4 tokens", primitives={"tokens": 4})
_MEAN = Setting("mean", "tokens of mean 1 over their map (scale 'mean')", primitives={"scale": "mean"})

_CPU_VARIED = (
    Setting("steps", "1,200 steps in place of 300", {"recipe": {"steps": 1200}}),
    Setting("rate", "learning rate 5e-4 in place of 2e-3", {"recipe": {"learning_rate": 5e-4}}),
    Setting("patch", "patches of 128 in place of 64", {"data": {"patch": 128}}),
    _K4,
    _MEAN,
    _DECODER,
    _LATENT,
)
_CPU_RECIPE = {"steps": 300, "batch": 2, "learning_rate": 2e-3, "warm_up": 0.05, "clip": 1.0, "weight_decay": 1e-4}
CPU = BenchmarkConfig(
    name="cpu",
    model={"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 2.66},
    data={"degradations": _THREE, "patch": 64},
    recipe={**_CPU_RECIPE, "save_every": 20, "log_every": 100},
    crop=96,
    studies=(
        *_all(_BASE, _SEEDS),
        Study(_MIX, ARMS, (0,)),
        *(_varied(setting, (0,)) for setting in _CPU_VARIED),
        Study(_MIX, ARMS, (1, 2)),
        Study(_BASE, ARMS, (3, 4)),
        *(_varied(setting, (1, 2)) for setting in _CPU_VARIED),
        _in_time(_MIX, _SEEDS),
    ),
)
"""The smallest form: half an hour on a shared core gives first results, and each further one more."""

FIVE = BenchmarkConfig(
    name="five",
    model=CPU.model,
    data={**CPU.data, "degradations": (*_THREE, "blur", "low")},
    recipe={**CPU.recipe, "steps": 900},
    crop=CPU.crop,
    studies=(Study(_BASE, (HOST, COMPARED, WIDENED, "tokens"), _SEEDS),),
)
"""The paper's five degradations and longer training, to see whether tokens tell degradations apart."""

_GPU_RECIPE = {"steps": 2400, "batch": 16, "learning_rate": 1e-3, "warm_up": 0.05, "clip": 1.0, "weight_decay": 1e-4}
GPU = BenchmarkConfig(
    name="gpu",
    model={"dim": 32, "num_blocks": [2, 2, 2, 2], "num_refinement_blocks": 2, "ffn_expansion_factor": 2.66},
    data={"degradations": _THREE, "patch": 64, "workers": 14},
    recipe={**_GPU_RECIPE, "save_every": 200, "log_every": 200},
    crop=None,
    studies=(
        *_all(_BASE, _SEEDS),
        *(
            _varied(setting, _SEEDS)
            for setting in (
                Setting("steps", "9,600 steps in place of 2,400", {"recipe": {"steps": 9600}}),
                _K4,
                _MEAN,
                _DECODER,
                _LATENT,
                Setting("patch", "patches of 128 in place of 64", {"data": {"patch": 128}}),
                Setting("rate", "learning rate 3e-4 in place of 1e-3", {"recipe": {"learning_rate": 3e-4}}),
            )
        ),
        *_all(_MIX, _SEEDS),
        *_all(_BASE, (3, 4)),
    ),
)
"""For sessions of half an hour on a data-centre GPU."""

_QUIETER = {"learning_rate": 5e-4, "batch": 8, "ema": 0.999}
_ALONE = {
    "rate": ("learning rate 5e-4 in place of 2e-3", ("learning_rate",)),
    "batch": ("8 patches per step in place of 2", ("batch",)),
    "average": ("moving average of the weights, 0.999 per step", ("ema",)),
    "quieter": ("all three", tuple(_QUIETER)),
}
QUIET = BenchmarkConfig(
    name="quiet",
    model=CPU.model,
    data={"degradations": CDD11, "patch": 64},
    recipe={**_CPU_RECIPE, "steps": 2000, "save_every": 200, "log_every": 200},
    crop=160,
    studies=tuple(
        Study(setting, (HOST, "both, paper"), (0, 1, 2, 3, 4, 5))
        for setting in (
            _BASE,
            *(
                Setting(name, what, {"recipe": {key: _QUIETER[key] for key in keys}})
                for name, (what, keys) in _ALONE.items()
            ),
            Setting("longer", "4,000 steps in place of 2,000, and so twice the cool-down", {"recipe": {"steps": 4000}}),
        )
    ),
    marks=(1000,),
)
"""How much differences between trainings from scratch scatter, by recipe. The seeds that a comparison needs follow."""

SCRATCH = BenchmarkConfig(
    name="scratch",
    model=CPU.model,
    data=QUIET.data,
    recipe={**QUIET.recipe, **_QUIETER, "steps": 15000, "save_every": 250},
    crop=QUIET.crop,
    studies=(Study(_BASE, (HOST, "both, paper", WIDENED, "value", "tokens"), (0, 1, 2, 3, 4)),),
    marks=(1000, 3000, 7500),
)
"""Training from scratch, long enough to see whether a gap opens. Its recipe and seeds are to be set by ``QUIET``."""

FORMS: Mapping[str, BenchmarkConfig] = {form.name: form for form in (CPU, FIVE, GPU, QUIET, SCRATCH)}
