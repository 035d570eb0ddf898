"""Adapts: searches, trains, writes the file, and compares the network before and after on images that were held out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...files import atomic_write, write_text
from ...models import create
from ..restoration import Restorer
from ..shared import results
from ..shared.packages import psutil
from ..training import prepare as prepare_training
from ..training import train
from ..training.plan import Plan, parameters
from ..training.run import trained_network
from .compare import compare, sheet_of
from .file import load, save
from .report import markdown
from .search import Say, choose
from .settings import Adaptation

KIND = "adapt"


class Adapted(NamedTuple):
    """What an adaptation came to.

    Attributes:
        result: content of ``result.json``.
        patch: the file of the trained parameters.
        sheet: a few images before and after, side by side.
    """

    result: results.Result
    patch: Path
    sheet: Path


def adapt(adaptation: Adaptation, *, command: str = "", say: Say = lambda line: None) -> Adapted:
    """Trains, from the beginning or from where an interruption left it, and writes the folder's files.

    These are ``patch.safetensors``, ``result.json``, ``adapt.md`` and ``before_after.png``.

    Args:
        adaptation: see ``prepare``.
        command: command that was run, for the result.
        say: is called with a line for the user.

    Raises:
        ConfigError, DivergedError, ImageError, ProcessError, StoppedError, WriteError: as
            ``exda_primitives.training.train`` does.
    """
    # If psutil is missing, fail now, not when the held-out images are restored.
    psutil()
    plan, chosen = adaptation.plan, adaptation.chosen
    if chosen is None:
        chosen = choose(adaptation, say)
        held = {"asked": adaptation.asked.as_dict(), "chosen": chosen}
        adaptation.out.mkdir(parents=True, exist_ok=True)
        write_text(adaptation.record, json.dumps(held, indent=1) + "\n")
        recipe = replace(plan.config.recipe, steps=chosen["steps"], learning_rate=chosen["learning_rate"])
        plan = prepare_training(replace(plan.config, recipe=recipe), plan.folder.path, accelerator=plan.accelerator)
    train(plan, command=command)
    net = trained_network(plan)
    save(net, adaptation.patch)
    say("restoring the held-out images, before and after")
    return _measured(adaptation, plan, parameters(net, trained=True), chosen, command)


def _measured(adaptation: Adaptation, plan: Plan, trained: int, chosen: Mapping[str, Any], command: str) -> Adapted:
    # From the files, as a user will load them.
    before, after = (create("auto", adaptation.asked.checkpoint).eval() for _ in range(2))
    load(after, adaptation.patch)
    device = torch.device("cuda" if plan.accelerator == "gpu" else "cpu")
    restorers = [Restorer(net.to(device)) for net in (before, after)]
    pairs = plan.data.validation
    assert pairs is not None
    path, sheet = adaptation.out / "result.json", adaptation.out / "before_after.png"
    config = {"asked": adaptation.asked.as_dict(), "chosen": dict(chosen)}
    result = results.begin(path, KIND, config, [plan.config.recipe.seed], command, device, replace=True)
    result |= {
        "runs": compare(pairs, *restorers),
        "trained_parameters": trained,
        "bytes": adaptation.patch.stat().st_size,
    }
    with atomic_write(sheet) as partial:
        # The format is given, as the partial file's name does not end in .png.
        sheet_of(pairs, *restorers).save(partial, format="PNG")
    write_text(adaptation.out / "adapt.md", markdown(result))
    results.write(path, result, replace=True)
    return Adapted(result, adaptation.patch, sheet)
