"""A small quality benchmark, and its images."""

import numpy as np
from benchmarks.quality.forms import ARMS, BASE, HOST, BenchmarkConfig, Setting, Study
from benchmarks.quality.session import Session, Sources
from rich.console import Console

SETTING = Setting(BASE, "the base")


def benchmark_config(*studies, recipe=None, **changes):
    """A benchmark of three steps with a checkpoint after each."""
    given = {
        "name": "small",
        "model": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 2},
        "data": {"degradations": ("noise25",), "patch": 16},
        "recipe": {"steps": 3, "batch": 1, "learning_rate": 1e-3, "save_every": 1} | (recipe or {}),
        "crop": 17,
        "studies": studies or (Study(SETTING, (HOST,), (0,)),),
    }
    return BenchmarkConfig(**{**given, **changes})


def all_arms(seeds=(0,)):
    return Study(SETTING, ARMS, seeds)


def sources(folder, seed=0):
    made = np.random.default_rng(seed)
    for name, number in (("crops", 3), ("photographs", 2)):
        np.savez(folder / f"{name}.npz", images=made.integers(0, 256, (number, 24, 27, 3), dtype=np.uint8))
    return Sources(folder / "crops.npz", folder / "photographs.npz")


def session(folder, config, name="quality"):
    given = Sources(folder / "crops.npz", folder / "photographs.npz")
    if not given.train.exists():
        given = sources(folder)
    console = Console(quiet=True)
    return Session(config, given, folder / f"{name}.json", folder / name, "cpu", "a test", console)


class Clock:
    """A clock that advances by one second at each reading."""

    def __init__(self):
        self.now = -1.0

    def __call__(self):
        self.now += 1
        return self.now
