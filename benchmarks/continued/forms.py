"""What is trained from which host: the forms of the benchmark."""

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
    """What becomes of the host before it is trained.

    Attributes:
        primitives: that are patched in; None for none.
        lora: layers that get LoRA, of a rank with which as many parameters are new as of both primitives; None for
            none.
        train: as in a recipe.
        widened: by new channels in the feed-forwards, with which it has as many parameters as with both primitives.
    """

    primitives: Mapping[str, Any] | None = None
    lora: LoraLayers | None = None
    train: Trained = "all"
    widened: bool = False


_HALF = {**PRIMITIVES[COMPARED], "exclude": ("latent",)}
"""Of the new parameters, those of the latent level are about half."""

EVERYTHING: Mapping[str, Arm] = {
    HOST: Arm(),
    COMPARED: Arm(PRIMITIVES[COMPARED]),
    WIDENED: Arm(widened=True),
    "value": Arm(PRIMITIVES["value"]),
    "tokens": Arm(PRIMITIVES["tokens"]),
    "host, LoRA": Arm(lora="attention"),
}
"""Arms in which every parameter is trained."""

LORA = "frozen, LoRA"
"""What those arms are compared with in which the host is frozen."""

FROZEN: Mapping[str, Arm] = {
    "frozen, both": Arm(PRIMITIVES[COMPARED], train="new"),
    LORA: Arm(lora="attention", train="new"),
    "frozen, LoRA everywhere": Arm(lora="all", train="new"),
    "frozen, norms": Arm(train="norms"),
    "frozen, half both, half LoRA": Arm(_HALF, "attention", "new"),
    "frozen, value": Arm(PRIMITIVES["value"], train="new"),
    "frozen, tokens": Arm(PRIMITIVES["tokens"], train="new"),
}
"""Arms in which the host's own parameters stay, but for those of its norms in the arm of that name."""

ARMS: Mapping[str, Arm] = {**EVERYTHING, **FROZEN}


@dataclass(frozen=True)
class Phase:
    """A training that makes a host: the first from random weights, each further one from the weights before.

    Attributes:
        name: of its folder.
        patch: side, in pixels.
        recipe: of the training configuration.
    """

    name: str
    patch: int
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Host:
    """A trained network.

    Attributes:
        name: in the result.
        file: of the weights in the folder of the runs, without its ending.
        weights: a file that holds them; where it is not there, they are trained. None for those that are trained in
            the folder of the runs, and stay there.
        degradations: that it was trained on, by name.
        phases: that make it; none for one that is made elsewhere.
    """

    name: str
    file: str
    weights: Path | None
    degradations: Mapping[str, Degradation]
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Search:
    """How learning rates are chosen: short runs on a seed of their own, and the lowest loss at their end.

    The loss is the mean of the last ``log_every`` steps, of the same patches at each rate.

    Attributes:
        seed: that nothing else has.
        steps: of a run.
        rates: to try, for what is trained.
        together: arms whose losses are added and decide for all; none where each arm decides for itself.
    """

    seed: int
    steps: int
    rates: Mapping[Trained, tuple[float, ...]]
    together: tuple[str, ...] = ()


@dataclass(frozen=True)
class Continued(BenchmarkConfig):
    """A form that starts from a trained host.

    Attributes:
        host: it; ``model`` has its arguments.
        search: of the learning rate, in the setting of the first study.
        keeps: whether is measured what is left of the host's own degradations, and of the host.
    """

    host: Host = field(kw_only=True)
    search: Search = field(kw_only=True)
    keeps: bool = False

    @property
    def accelerator(self) -> str:
        """Where it runs."""
        return "gpu" if self.name.endswith("gpu") else "cpu"


_MODEL = {"dim": 12, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 2.0}
"""The demo's, too."""

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

CONTINUED = Continued(
    name="continued",
    model=_MODEL,
    data={"degradations": CDD11, "patch": 96},
    recipe={**_SHARED, "steps": 5000, "warm_up": 0.02, "ema": 0.999, "save_every": 250, "log_every": 250},
    crop=256,
    studies=(Study(Setting(BASE, "the base"), (HOST, COMPARED, WIDENED, "tokens", "value"), (0, 1, 2, 3, 4)),),
    host=LONG,
    search=Search(100, 400, {"all": (3e-4, 1e-3)}, together=(HOST, COMPARED)),
    marks=(1000, 2500),
)
"""One host, and every arm goes on from it."""

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
"""The demo's host learns a degradation that it never saw."""

ADAPTATION_LONG = replace(
    ADAPTATION,
    name="adaptation_long",
    studies=tuple(
        Study(_learns(name, what), _ADAPTED, _SEEDS)
        for name, what in (("blur", "motion blur"), ("noise25", "noise of 25/255"))
    ),
    host=LONG,
)
"""The host of ``CONTINUED`` learns what is none of CDD-11's degradations."""

_LARGE = {**_MODEL, "dim": 32}
"""With one block a level its checkpoint has some 50 MB, which travel from piece to piece."""

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
"""Larger, for pieces of 4 to 10 minutes on a data-centre GPU that add up."""

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
"""The host of ``CONTINUED_GPU`` learns the same as in ``ADAPTATION_LONG``."""

FORMS: Mapping[str, Continued] = {
    form.name: form for form in (CONTINUED, ADAPTATION, ADAPTATION_LONG, CONTINUED_GPU, ADAPTATION_GPU)
}
