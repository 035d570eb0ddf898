"""What is trained: the sizes of the benchmark, and what is changed one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from exda_primitives.workbench.data.degradations.composition import CDD11

Budget = Literal["steps", "time"]
"""As many steps as the host; or as much time as the host takes for its steps, and as many steps as fit into it."""

HOST = "host"
WIDENED = "widened"
PRIMITIVES: Mapping[str, Mapping[str, Any]] = {
    "both, identity": {"tokens": 1, "value": "residual", "init": "identity"},
    "both, paper": {"tokens": 1, "value": "residual", "init": "paper"},
    "value": {"tokens": 0, "value": "residual", "init": "identity"},
    "tokens": {"tokens": 1, "value": "none", "init": "identity"},
}
"""Arm -> what is put into every attention of the host."""

ARMS = (HOST, "both, identity", WIDENED, "both, paper", "value", "tokens")
"""All arms, in the order in which they are trained."""

COMPARED = "both, identity"
"""The arm that the variations are made with, and whose parameters the widened host has."""

BASE = "base"
"""The setting that all others change."""


@dataclass(frozen=True)
class Setting:
    """How it is trained, as a change of the form's base.

    Attributes:
        name: in the result.
        what: is changed, for the table.
        training: over ``data`` and ``recipe`` of the form.
        primitives: over those of the arm.
    """

    name: str
    what: str
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primitives: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A setting, and what is trained in it.

    Attributes:
        setting: of the base.
        arms: in this order; the host of equal time is that of equal steps.
        seeds: one after the other, so that the first is whole early.
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
        setting: of the base.
        arm: of ``ARMS``.
        seed: of weights, order and degradations.
        budget: see ``Budget``.
    """

    setting: Setting
    arm: str
    seed: int
    budget: Budget

    @property
    def name(self) -> str:
        """Tells it from all others, and is fit for a folder."""
        return "-".join((self.setting.name, self.budget, self.arm.replace(", ", "-"), f"seed{self.seed}"))


@dataclass(frozen=True)
class BenchmarkConfig:
    """A size of the benchmark.

    Attributes:
        name: of ``FORMS``; ``"gpu"`` runs on a GPU, the others on the CPU.
        model: arguments of Restormer.
        data: of the training configuration, without its source.
        recipe: likewise; its ``steps`` are those of the host.
        crop: side of the square in the middle of each test photograph that is restored; None for all of it.
        studies: in the order in which they are done.
        marks: steps before the last one after which the photographs are restored, too; checkpoints are written there.
    """

    name: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    crop: int | None
    studies: tuple[Study, ...]
    marks: tuple[int, ...] = ()

    def jobs(self) -> Iterator[Job]:
        """In the order in which they are done."""
        for study in self.studies:
            for seed in study.seeds:
                for arm in study.arms:
                    yield Job(study.setting, arm, seed, study.budget)


def _all(setting: Setting, seeds: tuple[int, ...]) -> tuple[Study, Study]:
    return Study(setting, ARMS, seeds), _in_time(setting, seeds)


def _in_time(setting: Setting, seeds: tuple[int, ...]) -> Study:
    """The host of equal time is that of equal steps."""
    return Study(setting, tuple(arm for arm in ARMS if arm != HOST), seeds, "time")


def _varied(setting: Setting, seeds: tuple[int, ...]) -> Study:
    """Of a variation: the primitives, with a host and a widened host of its own where those are changed too."""
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
"""The smallest form: what a shared core does in a good half hour, and more in each further one."""

FIVE = BenchmarkConfig(
    name="five",
    model=CPU.model,
    data={**CPU.data, "degradations": (*_THREE, "blur", "low")},
    recipe={**CPU.recipe, "steps": 900},
    crop=CPU.crop,
    studies=(Study(_BASE, (HOST, COMPARED, WIDENED, "tokens"), _SEEDS),),
)
"""The five degradations of the paper, longer, for what tokens tell apart."""

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
    "batch": ("8 patches a step in place of 2", ("batch",)),
    "average": ("moving average of the weights, 0.999 a step", ("ema",)),
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
"""How much the difference between two trainings from scratch scatters, by recipe: what the number of seeds follows from
that a comparison needs."""

SCRATCH = BenchmarkConfig(
    name="scratch",
    model=CPU.model,
    data=QUIET.data,
    recipe={**QUIET.recipe, **_QUIETER, "steps": 15000, "save_every": 250},
    crop=QUIET.crop,
    studies=(Study(_BASE, (HOST, "both, paper", WIDENED, "value", "tokens"), (0, 1, 2, 3, 4)),),
    marks=(1000, 3000, 7500),
)
"""From scratch, long enough to see whether a gap opens. Recipe and seeds are to follow from ``QUIET``."""

FORMS: Mapping[str, BenchmarkConfig] = {form.name: form for form in (CPU, FIVE, GPU, QUIET, SCRATCH)}
