"""A small benchmark of continued training: a host of two short phases, and trainings of three steps from it."""

from benchmarks.continued.forms import Continued, Host, Phase, Search
from benchmarks.continued.host import host_weights
from benchmarks.continued.session import ContinuedSession
from benchmarks.quality.forms import HOST, Study
from benchmarks.quality.session import Sources
from rich.console import Console
from tests.benchmarks.quality.small import SETTING
from tests.benchmarks.quality.small import sources as made_sources

from exda_primitives.workbench.data.degradations import DEGRADATIONS

MODEL = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 2}
PHASE = {"steps": 2, "batch": 1, "learning_rate": 1e-3, "save_every": 1, "ema": 0.9}


def benchmark_config(folder, *studies, recipe=None, **changes):
    host = Host(
        "a test's",
        "small",
        folder / "given.safetensors",
        {"noise15": DEGRADATIONS["noise15"]},
        (Phase("host-16", 16, PHASE), Phase("host-24", 24, PHASE)),
    )
    given = {
        "name": "small",
        "model": MODEL,
        "data": {"degradations": ("noise25",), "patch": 16},
        "recipe": {"steps": 3, "batch": 1, "save_every": 1} | (recipe or {}),
        "crop": 16,
        "studies": studies or (Study(SETTING, (HOST,), (0,)),),
        "host": host,
        "search": Search(100, 1, {"all": (1e-3,)}),
    }
    return Continued(**{**given, **changes})


def sources(folder):
    given = Sources(folder / "crops.npz", folder / "photographs.npz")
    return given if given.train.exists() else made_sources(folder)


def host(folder, config, name="work", is_over=lambda: False):
    return host_weights(config, str(sources(folder).train), folder / name, "cpu", is_over, "a test")


def session(folder, config, name="continued"):
    weights = host(folder, config)
    console = Console(quiet=True)
    return ContinuedSession(
        config, weights, sources(folder), folder / f"{name}.json", folder / "work", "cpu", "a test", console
    )
