"""The forms of the benchmark: which hosts, arms, degradations and recipes each one trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.quality.forms import BASE, COMPARED, HOST, PRIMITIVES, WIDENED, BenchmarkConfig, Setting, Study
from exda_primitives.workbench.data.degradations import DEGRADATIONS
from exda_primitives.workbench.data.degradations.composition import CDD11
from exda_primitives.workbench.data.degradations.tensors import Degradation
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.training.config import LoraLayers, Trained

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Arm:
    """How the host is changed before it is trained, and which parameters are trained.

    Attributes:
        primitives: options of ``patch``; None for an unpatched host.
        lora: layers that get LoRA, of a rank that makes as many new parameters as both primitives have; None for no
            LoRA.
        train: which parameters are trained, as in a recipe.
        widened: whether the feed-forwards get new channels, as many parameters as both primitives have.
    """

    primitives: Mapping[str, Any] | None = None
    lora: LoraLayers | None = None
    train: Trained = "all"
    widened: bool = False


_HALF = {**PRIMITIVES[COMPARED], "exclude": ("latent",)}
"""Both primitives except in the latent level, which has about half of the new parameters."""

EVERYTHING: Mapping[str, Arm] = {
    HOST: Arm(),
    COMPARED: Arm(PRIMITIVES[COMPARED]),
    WIDENED: Arm(widened=True),
    "value": Arm(PRIMITIVES["value"]),
    "tokens": Arm(PRIMITIVES["tokens"]),
    "host, LoRA": Arm(lora="attention"),
}
"""The arms in which every parameter is trained."""

LORA = "frozen, LoRA"
"""The arm that the other arms with a frozen host are compared with."""

FROZEN: Mapping[str, Arm] = {
    "frozen, both": Arm(PRIMITIVES[COMPARED], train="new"),
    LORA: Arm(lora="attention", train="new"),
    "frozen, LoRA everywhere": Arm(lora="all", train="new"),
    "frozen, norms": Arm(train="norms"),
    "frozen, half both, half LoRA": Arm(_HALF, "attention", "new"),
    "frozen, value": Arm(PRIMITIVES["value"], train="new"),
    "frozen, tokens": Arm(PRIMITIVES["tokens"], train="new"),
}
"""The arms in which the host's own parameters are frozen; "frozen, norms" trains those of its norms."""

ARMS: Mapping[str, Arm] = {**EVERYTHING, **FROZEN}


@dataclass(frozen=True)
class Phase:
    """One training of a host: the first starts from random weights, each later one from the previous weights.

    Attributes:
        name: name of its folder.
        patch: side of the training patches in pixels.
        recipe: recipe of the training configuration.
    """

    name: str
    patch: int
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Host:
    """A trained network.

    Attributes:
        name: its name in the result.
        file: stem of its weight file in the working folder.
        weights: the file that keeps its weights; if it is missing, they are trained and written there. None if they
            are trained and kept in the working folder only.
        degradations: the degradations that it was trained on, by name.
        phases: the trainings that make it; empty if it is made elsewhere.
    """

    name: str
    file: str
    weights: Path | None
    degradations: Mapping[str, Degradation]
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Search:
    """How learning rates are chosen: by the lowest loss at the end of short runs with a seed of their own.

    The loss is the mean over the last ``log_every`` steps, on the same patches at each rate.

    Attributes:
        seed: a seed that no other run has.
        steps: length of a run.
        rates: the rates to try, by which parameters are trained.
        together: arms whose summed losses choose one rate for all arms; empty if each arm has its own rate.
    """

    seed: int
    steps: int
    rates: Mapping[Trained, tuple[float, ...]]
    together: tuple[str, ...] = ()


@dataclass(frozen=True)
class Continued(BenchmarkConfig):
    """A form that starts from a trained host.

    Attributes:
        host: the host; ``model`` holds its arguments.
        search: how learning rates are chosen, in the setting of the first study.
        keeps: whether to measure also how the trained network restores the host's own degradations, whether the host
            comes back when primitives and LoRA are removed, and how large the file of the trained parameters is.
    """

    host: Host = field(kw_only=True)
    search: Search = field(kw_only=True)
    keeps: bool = False

    @property
    def accelerator(self) -> str:
        """``"cpu"`` or ``"gpu"``, where the form runs."""
        return "gpu" if self.name.endswith("gpu") else "cpu"


_MODEL = {"dim": 12, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 2.0}
"""The arguments of the demo's Restormer."""

_SHARED = {"batch": 4, "clip": 1.0, "weight_decay": 1e-4}
_PHASE = {**_SHARED, "ema": 0.999, "save_every": 500, "log_every": 250, "seed": 0}
LONG = Host(
    "15,000 steps on CDD-11's degradations",
    "long",
    RESULTS / "continued_host.safetensors",
    {name: DEGRADATIONS[name] for name in CDD11},
    (
        Phase("host-64", 64, _PHASE | {"steps": 10000, "learning_rate": 1e-3, "warm_up": 0.03, "cosine_to": 1.5}),
        Phase("host-96", 96, _PHASE | {"steps": 5000, "learning_rate": 3e-4, "warm_up": 0.02, "cosine_to": 1.0}),
    ),
)

_COMPARED = (COMPARED,)
_ASKED = (
    (Setting("mean", "tokens of mean 1 over their map (scale 'mean')", primitives={"scale": "mean"}), _COMPARED),
    (Setting("stride1", "tokens of stride 1 in place of 2", primitives={"stride": 1}), _COMPARED),
    (Setting("stride4", "tokens of stride 4 in place of 2", primitives={"stride": 4}), _COMPARED),
    (Setting("tokens4", "K = 4 tokens", primitives={"tokens": 4}), _COMPARED),
    (Setting("after", "the value after the aggregation", primitives={"value_position": "after"}), _COMPARED),
    (
        Setting("frequency", "0.1 times the frequency loss in addition", {"recipe": {"fft": 0.1}}),
        (HOST, COMPARED),
    ),
)
"""What the paper's reviewers asked for, with the arms of each. Where only primitives differ, the base's hosts serve."""

CONTINUED = Continued(
    name="continued",
    model=_MODEL,
    data={"degradations": CDD11, "patch": 96},
    recipe={**_SHARED, "steps": 5000, "warm_up": 0.02, "ema": 0.999, "save_every": 250, "log_every": 250},
    crop=256,
    studies=(
        Study(Setting(BASE, "the base"), (HOST, COMPARED, WIDENED, "tokens", "value"), (0, 1, 2)),
        *(Study(setting, arms, (0, 1, 2)) for setting, arms in _ASKED),
    ),
    host=LONG,
    search=Search(100, 400, {"all": (3e-4, 1e-3)}, together=(HOST, COMPARED)),
    marks=(1000, 2500),
)
"""Further training: every arm continues from one host, on the host's own degradations.

Three seeds suffice: with both primitives, they detect a difference of 0.007 dB.
"""

_FIRST = ("frozen, both", LORA, HOST, COMPARED)
_ADAPTED = (*_FIRST, *(arm for arm in ARMS if arm not in (*_FIRST, WIDENED)))
_SEEDS = (0, 1, 2)


def _learns(name: str, what: str) -> Setting:
    return Setting(name, what, {"data": {"degradations": (name,)}})


_FURTHER = (
    _learns("blur", "motion blur"),
    _learns("snow", "snow"),
    _learns("haze_snow", "snow in haze"),
)

ADAPTATION = Continued(
    name="adaptation",
    model=_MODEL,
    data={"patch": 64},
    recipe={**_SHARED, "steps": 1500, "warm_up": 0.05, "save_every": 100, "log_every": 50},
    crop=256,
    studies=(
        Study(_learns("low", "low light"), _ADAPTED, _SEEDS),
        *(Study(setting, _ADAPTED, _SEEDS[:1]) for setting in _FURTHER),
        *(Study(setting, _ADAPTED, _SEEDS[1:]) for setting in _FURTHER),
    ),
    host=Host(
        "the demo's",
        "demo",
        Path(str(resources.files("exda_primitives.workbench.demo"))) / "data" / "host.safetensors",
        {"haze, rain and noise": mixed},
    ),
    search=Search(100, 200, {"all": (1e-3, 3e-3, 1e-2), "new": (3e-3, 1e-2, 3e-2), "norms": (3e-3, 1e-2, 3e-2)}),
    keeps=True,
)
"""The demo's host learns a degradation that it was not trained on."""

ADAPTATION_LONG = replace(
    ADAPTATION,
    name="adaptation_long",
    studies=tuple(
        Study(_learns(name, what), _ADAPTED, _SEEDS)
        for name, what in (("blur", "motion blur"), ("noise25", "noise of 25/255"))
    ),
    host=LONG,
)
"""The host of ``CONTINUED`` learns degradations that CDD-11 does not have."""

_LARGE = {**_MODEL, "dim": 32}
"""A larger network; one block per level keeps its checkpoint, which travels from piece to piece, at about 50 MB."""

_ON_GPU = {**_SHARED, "batch": 16, "precision": "bf16-mixed", "save_every": 250, "log_every": 250}
_LARGE_HOST = Host(
    "18,000 steps on CDD-11's degradations",
    "large",
    None,
    LONG.degradations,
    (
        Phase(
            "host-64",
            64,
            {**_ON_GPU, "ema": 0.999, "steps": 12000, "learning_rate": 1e-3, "warm_up": 0.03, "cosine_to": 1.5},
        ),
        Phase("host-128", 128, {**_ON_GPU, "ema": 0.999, "steps": 6000, "learning_rate": 3e-4, "warm_up": 0.02}),
    ),
)

CONTINUED_GPU = replace(
    CONTINUED,
    name="continued_gpu",
    model=_LARGE,
    data={**CONTINUED.data, "patch": 128, "workers": 14},
    recipe={**CONTINUED.recipe, **_ON_GPU},
    crop=None,
    host=_LARGE_HOST,
)
"""``CONTINUED`` with a larger network, in pieces of 4 to 10 minutes on a data-centre GPU."""

ADAPTATION_GPU = replace(
    ADAPTATION,
    name="adaptation_gpu",
    model=_LARGE,
    data={"patch": 128, "workers": 14},
    recipe={**ADAPTATION.recipe, **_ON_GPU},
    crop=None,
    studies=ADAPTATION_LONG.studies,
    host=_LARGE_HOST,
)
"""The host of ``CONTINUED_GPU`` learns the degradations of ``ADAPTATION_LONG``."""

FORMS: Mapping[str, Continued] = {
    form.name: form for form in (CONTINUED, ADAPTATION, ADAPTATION_LONG, CONTINUED_GPU, ADAPTATION_GPU)
}
