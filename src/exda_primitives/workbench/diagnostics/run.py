"""Trains the whole grid of an experiment, and writes each run to the result file as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ...errors import ConfigError
from ..shared.results import Result, begin, read, write
from .experiment import Experiment, Run


def run(
    experiment: Experiment,
    path: Path,
    seeds: Sequence[int],
    command: str,
    on_progress: Callable[[Run, float], None] = lambda run, done: None,
) -> Result:
    """Trains the runs that the file does not hold yet.

    It uses one thread, so that a seed gives the same bits whatever the number of cores.

    Args:
        experiment: the experiment, with its conditions and variants.
        path: the result file; runs in it, of the same configuration, are kept and not repeated.
        seeds: seeds; each is trained with every condition and variant.
        command: command line that gives the same file.
        on_progress: called with the run in training and the share of all work that is done, from 0 to 1.

    Returns:
        The result as it is in the file.

    Raises:
        ConfigError: there are no seeds, or the file has another kind, version, configuration or machine; nothing was
            overwritten.
        ExDAError: a loss is not finite; the runs before it are in the file.
    """
    if not seeds:
        raise ConfigError("no seeds: nothing to train")
    with _one_thread():
        result = begin(path, experiment.kind, experiment.config(), seeds, command)
        done = {Run(row["condition"], row["variant"], row["seed"]) for row in result["runs"]}
        left = [each for each in grid(experiment, seeds) if each not in done]
        if not left:
            # The file stays unchanged, since neither this command nor this commit added anything.
            return read(path, experiment.kind) if path.exists() else result
        total = sum(experiment.cost(each.condition) for each in left)
        before = 0.0
        for each in left:
            cost = experiment.cost(each.condition)

            def on_step(step: int, each: Run = each, before: float = before, cost: float = cost) -> None:
                on_progress(each, (before + cost * step / experiment.steps) / total)

            result["runs"].append(experiment.train(each, on_step))
            before += cost
            write(path, result)
    return result


def grid(experiment: Experiment, seeds: Sequence[int]) -> list[Run]:
    """Returns all runs once, seed by seed: so an interrupted experiment has as many runs of each variant."""
    runs = [
        Run(condition, variant, seed)
        for seed in seeds
        for condition in experiment.conditions
        for variant in experiment.variants
        if experiment.has(condition, variant)
    ]
    return list(dict.fromkeys(runs))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
