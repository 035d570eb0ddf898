"""Runs of a few steps, and what they leave behind."""

import numpy as np
import torch

from exda_primitives.workbench.training import TrainConfig, prepare, train

TINY = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 1}
STEPS = 5


class PowerError(Exception):
    """Stands for a power failure."""


def images(folder, name="clean.npz", number=3, seed=0):
    """Writes clean images of 20 x 27 pixels and returns the path."""
    made = np.random.default_rng(seed).integers(0, 256, (number, 20, 27, 3), dtype=np.uint8)
    np.savez(folder / name, images=made)
    return str(folder / name)


def settings(folder, *, recipe=None, data=None, **sections):
    """The contents of a configuration file. Five steps of two pairs outlast an epoch, which has six."""
    given = {
        "model": {"name": "restormer", "arguments": TINY},
        "primitives": {"init": "paper"},
        "data": {"source": images(folder), "degradations": ["noise25", "haze"], "patch": 16} | (data or {}),
        "recipe": {"steps": STEPS, "batch": 2, "learning_rate": 1e-3, "save_every": 2, "log_every": 1} | (recipe or {}),
    }
    return given | sections


def config(folder, **changes):
    return TrainConfig.decoded(settings(folder, **changes))


def run(configuration, out, *, stop=None, devices=1):
    """Trains; with ``stop``, raises `PowerError` after that step."""

    def on_step(state):
        if state.step == stop:
            raise PowerError

    plan = prepare(configuration, out, devices=devices, accelerator="cpu")
    return train(plan, command="a test", on_step=None if stop is None else on_step)


def checkpoint(out):
    return torch.load(out / "last.ckpt", weights_only=True)


def same(ours, theirs):
    """Whether two values, also in containers, are equal bit for bit."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(each, theirs[name]) for name, each in ours.items())
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def files_in(out):
    """The names of the files, without the lock that keeps other runs out."""
    return sorted(path.name for path in out.iterdir() if path.name != ".lock")


def final_state(out):
    """The last checkpoint without its legs, which say when and on which machine it was computed."""
    return {name: each for name, each in checkpoint(out).items() if name != "legs"}
