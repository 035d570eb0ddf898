"""Chooses the length and the learning rate of an adaptation by short runs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import ConfigError, DivergedError
from ..training import TrainConfig, train
from ..training import prepare as prepare_training
from ..training.state import State
from .methods import METHODS
from .settings import Adaptation

SHARE = 0.05
"""Share of the time that each learning rate is tried for."""
LEAST_STEPS = 20
"""If a rate could be tried for fewer steps than this, none is tried: the middle one is taken."""
TIMED_STEPS = 8
"""Steps by which the pace is measured."""
SEED = 1000
"""Is added to the recipe's seed: the short runs see other patches than the training."""
ENOUGH = 500
"""Fewer steps than this are said to be too few."""

Say = Callable[[str], None]
"""Prints a line."""


def choose(adaptation: Adaptation, say: Say) -> dict[str, Any]:
    """Returns ``steps``, ``learning_rate``, and as ``tried`` each rate's loss (None if it diverged), plain data.

    Raises:
        ConfigError: if all learning rates diverge.
    """
    asked, config = adaptation.asked, adaptation.plan.config
    rates = METHODS[asked.method].rates
    steps = config.recipe.steps if asked.fixes("recipe.steps") else None
    searches = not asked.fixes("recipe.learning_rate")
    if steps is None:
        say("measuring the time of a step")
        # With the lowest rate, which is the least likely to diverge; the time does not depend on it.
        slow = replace(config, recipe=replace(config.recipe, learning_rate=min(rates)))
        seconds = _short(adaptation, slow, TIMED_STEPS)[0]
        fit = max(1, int(60 * asked.minutes / seconds))
        tried_for = int(SHARE * fit) if searches else 0
        searches = searches and tried_for >= LEAST_STEPS
        steps = max(1, fit - (len(rates) * tried_for if searches else 0))
        say(f"{seconds:.2g} s per step: {steps:,} steps in {asked.minutes:g} minutes" + _too_few(steps, seconds))
    else:
        tried_for = int(SHARE * steps)
        searches = searches and tried_for >= LEAST_STEPS
    if not searches:
        return {"steps": steps, "learning_rate": config.recipe.learning_rate, "tried": {}}
    tried: dict[str, float | None] = {}
    for rate in rates:
        say(f"trying learning rate {rate:g} for {tried_for} steps")
        recipe = replace(config.recipe, learning_rate=rate)
        try:
            tried[f"{rate:g}"] = _short(adaptation, replace(config, recipe=recipe), tried_for)[1]
        except DivergedError:
            tried[f"{rate:g}"] = None
    best = min(rates, key=lambda rate: math.inf if (loss := tried[f"{rate:g}"]) is None else loss)
    if tried[f"{best:g}"] is None:
        raise ConfigError(
            f"all learning rates from {min(rates):g} to {max(rates):g} diverge; set a lower one, recipe.learning_rate."
        )
    say(f"learning rate {best:g}: the lowest loss of " + ", ".join(f"{rate}: {_text(tried[rate])}" for rate in tried))
    return {"steps": steps, "learning_rate": best, "tried": tried}


def _short(adaptation: Adaptation, config: TrainConfig, steps: int) -> tuple[float, float]:
    """Trains for a few steps in a temporary folder.

    Returns:
        The median time of a step in seconds, without the first, and the mean loss of the last half of the steps.

    Raises:
        DivergedError: for a loss that is not finite.
    """
    ends: list[float] = []
    losses: list[float] = []

    def on_step(state: State) -> None:
        ends.append(time.perf_counter())
        if state.step == steps:
            losses.extend(state.window)
            raise _EnoughError

    # One step more than are done: at the last one the run would validate and save.
    recipe = replace(config.recipe, steps=steps + 1, seed=config.recipe.seed + SEED, log_every=steps + 2)
    with TemporaryDirectory() as folder:
        plan = prepare_training(replace(config, recipe=recipe), Path(folder), accelerator=adaptation.plan.accelerator)
        with suppress(_EnoughError):
            train(plan, on_step=on_step)
    taken = [after - before for before, after in pairwise(ends)]
    return statistics.median(taken), statistics.fmean(losses[len(losses) // 2 :])


class _EnoughError(Exception):
    """Ends a short run."""


def _too_few(steps: int, seconds: float) -> str:
    if steps >= ENOUGH:
        return ""
    return f". That is little to learn from: {ENOUGH} steps would take {math.ceil(ENOUGH * seconds / 60)} minutes"


def _text(loss: float | None) -> str:
    return "diverged" if loss is None else f"{loss:.5f}"
