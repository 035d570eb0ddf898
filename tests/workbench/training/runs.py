"""Runs of a few steps, and what they came to."""

import numpy as np
import torch

from exda_primitives.workbench.training import TrainConfig, prepare, train

TINY = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 1}
STEPS = 5


class PowerError(Exception):
    """The power goes."""


def images(folder, name="clean.npz", number=3, seed=0):
    """Clean images of 20 x 27 pixels."""
    made = np.random.default_rng(seed).integers(0, 256, (number, 20, 27, 3), dtype=np.uint8)
    np.savez(folder / name, images=made)
    return str(folder / name)


def settings(folder, *, recipe=None, data=None, **sections):
    """A file's contents; an epoch has six pairs, which five steps of two outlast."""
    given = {
        "model": {"name": "restormer", "arguments": TINY},
        "primitives": {"init": "paper"},
        "data": {"source": images(folder), "degradations": ["noise25", "haze"], "patch": 16} | (data or {}),
        "recipe": {"steps": STEPS, "batch": 2, "learning_rate": 1e-3, "save_every": 2, "log_every": 1} | (recipe or {}),
    }
    return given | sections


def config(folder, **changes):
    return TrainConfig.decoded(settings(folder, **changes))


def run(told, out, *, stop=None, devices=1):
    """Trains; with ``stop``, the power goes after that step."""

    def on_step(state):
        if state.step == stop:
            raise PowerError

    plan = prepare(told, out, devices=devices, accelerator="cpu")
    return train(plan, command="a test", on_step=None if stop is None else on_step)


def checkpoint(out):
    return torch.load(out / "last.ckpt", weights_only=True)


def same(ours, theirs):
    """Bit for bit."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(each, theirs[name]) for name, each in ours.items())
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def left_in(out):
    """Names of the files, but for that which keeps other runs out."""
    return sorted(path.name for path in out.iterdir() if path.name != ".lock")


def everything(out):
    """Of the last checkpoint, all but when and on what it was computed."""
    return {name: each for name, each in checkpoint(out).items() if name != "legs"}
