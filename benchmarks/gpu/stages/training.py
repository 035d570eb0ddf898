"""Measures training steps of a whole network: time, memory, and gradients against float64."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable

from exda_primitives.workbench.bench.cases import EAGER, TRAINING
from exda_primitives.workbench.bench.check import distance
from exda_primitives.workbench.bench.memory import Peak
from exda_primitives.workbench.bench.precision import PRECISIONS, Precision
from exda_primitives.workbench.bench.steps import Bench

from .. import blocks, networks, tuning
from ..launches import Recording
from ..networks import VARIANTS
from ..stage import Run
from ..turns import timed
from .networks import NETWORK

SIDE, BATCH = 128, 4
"""Side of the crops in pixels, and batch size."""

_VARIANTS = ("original", "fused", "torch")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="bf16")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8, help="time after which no further turn is begun")


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    for block in blocks.of_network(SIDE, SIDE, batch=BATCH):
        yield Recording(block, options.precision, training=True)


def run(run: Run, options: argparse.Namespace) -> None:
    precision = PRECISIONS[options.precision]
    bench = Bench.of(run.device.torch, TRAINING, BATCH, SIDE, SIDE)
    tuning.briefly()
    where = {"size": f"{BATCH} x {SIDE}", "precision": precision.name}
    steps: dict[tuple[str, str], Callable[[], object]] = {}
    with precision.settings(), tuning.reported(run.rows):
        for number, name in enumerate(_VARIANTS, 1):
            if run.left() < 0:
                break
            with run.surviving(variant=name, **where):
                steps[name, EAGER] = _prepared(run, name, bench, precision, where)
            # The first pair is timed at once: if the stage fails later, the main ratio is known.
            if number in (2, len(_VARIANTS)):
                timed(run, steps, options.turns, options.seconds, where)


def _prepared(run: Run, name: str, bench: Bench, precision: Precision, where: dict[str, str]) -> Callable[[], object]:
    variant = VARIANTS[name]
    placed = bench.place(networks.network(NETWORK, variant), variant.computed, precision)
    step = bench.step(placed, variant.computed, precision)
    begun = time.perf_counter()
    gradients = step.signals()
    first = time.perf_counter() - begun
    error = distance(gradients, networks.reference(NETWORK, bench, variant.patched)).relative
    peak = Peak(run.device.torch, (*placed.parameters(), *placed.buffers())).of(step)
    run.rows.write("training", variant=name, **where, first_call_seconds=first, peak_bytes=peak, gradient_error=error)
    return step
