"""Measures time, memory and error of a whole network and of the original, eager and as a captured graph."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from torch import Tensor

from exda_primitives.ops.triton import gated_product
from exda_primitives.workbench.bench.cases import CAPTURED, EAGER, parse_size
from exda_primitives.workbench.bench.check import relative
from exda_primitives.workbench.bench.memory import Peak
from exda_primitives.workbench.bench.networks import copy_for_variant, variant_backend
from exda_primitives.workbench.bench.precision import PRECISIONS, Precision
from exda_primitives.workbench.bench.steps import Bench

from .. import blocks, networks, traffic, tuning
from ..launches import Recording
from ..networks import VARIANTS
from ..stage import Run
from ..turns import timed
from .networks import NETWORK

_PROFILED = ("fused", "original", "fused-unpatched")
"""Variants to profile, in this order and while there is time."""

Steps = dict[tuple[str, str], Callable[[], object]]
"""(variant, mode) -> step."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", required=True, help="256 or 640x480 (width x height)")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="bf16")
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), required=True)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=20, help="time after which no further turn is begun")
    parser.add_argument("--profile", action="store_true", help="write time, bytes and launches of each kernel")
    parser.add_argument("--gate-apart", action="store_true", help="compute the gate in a pass before its product")
    parser.add_argument("--no-reference", action="store_true", help="do not check outputs against float64")


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    for name in options.variants:
        variant = VARIANTS[name]
        if variant.computed == "fused":
            for block in blocks.of_network(*parse_size(options.size), patched=variant.patched):
                yield Recording(block, options.precision)


def run(run: Run, options: argparse.Namespace) -> None:
    precision, size = PRECISIONS[options.precision], parse_size(options.size)
    bench = Bench.of(run.device.torch, "forward", 1, *size)
    image = bench.image.to(run.device.torch, precision.dtype)
    tuning.briefly()
    where = {"size": options.size, "precision": precision.name}
    if options.gate_apart:
        # No product is small enough to be fused with the gate any more.
        gated_product.MOST_OUTPUTS = 0
        where["precision"] += ", gate apart"
    steps: Steps = {}
    forwards: dict[str, Callable[[], Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    with precision.settings(), tuning.reported(run.rows):
        for number, name in enumerate(options.variants, 1):
            if run.left() < 0:
                break
            with run.surviving(variant=name, **where):
                forwards[name], outputs[name] = _prepared(run, name, image, precision, where)
                steps[name, EAGER] = forwards[name]
                steps[name, CAPTURED] = _captured(run, name, forwards[name], image, where)
            # The first pair is timed at once: if the stage fails later, the main ratio is known.
            if number in (2, len(options.variants)):
                timed(run, steps, options.turns, options.seconds, where)
        if options.profile:
            _profile(run, forwards, where)
    if not options.no_reference and run.left() > 0:
        for name, output in outputs.items():
            with run.surviving(variant=name, **where):
                _check(run, name, output, bench, where)


def _prepared(
    run: Run, name: str, image: Tensor, precision: Precision, where: dict[str, str]
) -> tuple[Callable[[], Tensor], Tensor]:
    """Returns a variant's forward pass and its output on the CPU, and writes a row on its first call and memory."""
    variant = VARIANTS[name]
    begun = time.perf_counter()
    model = copy_for_variant(networks.network(NETWORK, variant), variant.computed, run.device.torch, precision.dtype)
    run.device.wait()
    placed = time.perf_counter() - begun

    @torch.no_grad()
    def forward() -> Tensor:
        with variant_backend(variant.computed):
            output: Tensor = model(image)
        return output

    begun = time.perf_counter()
    output = forward().cpu()
    first = time.perf_counter() - begun
    peak = Peak(run.device.torch, (*model.parameters(), *model.buffers(), image)).of(forward)
    run.rows.write("prepared", variant=name, **where, place_seconds=placed, first_call_seconds=first, peak_bytes=peak)
    return forward, output


def _captured(
    run: Run, name: str, forward: Callable[[], Tensor], image: Tensor, where: dict[str, str]
) -> Callable[[], object]:
    """Returns a replay of the pass, and writes a row on how it compares with the pass on this and another image."""
    replay = run.device.captured(forward)
    # The replay reads ``image`` in place. Another image shows a replay that only repeats the captured output.
    given, equal, apart = image.clone(), [], []
    for shown in (given, torch.rand_like(image)):
        image.copy_(shown)
        replay()
        expected = forward()
        run.device.wait()
        equal.append(torch.equal(replay.output, expected))
        apart.append(relative(replay.output, expected))
    image.copy_(given)
    run.rows.write("captured", variant=name, **where, same_bits=equal, differences=apart)
    return replay


def _profile(run: Run, forwards: dict[str, Callable[[], Tensor]], where: dict[str, str]) -> None:
    for name in _PROFILED:
        if name in forwards and run.left() > 0:
            with run.surviving(variant=name, **where):
                found = traffic.passes(run.device, forwards[name])
                run.rows.write(
                    "passes",
                    variant=name,
                    **where,
                    ms=sum(each.ms for each in found),
                    launches=sum(each.launches for each in found),
                    passes=[asdict(each) for each in traffic.shortened(found)],
                )


def _check(run: Run, name: str, output: Tensor, bench: Bench, where: dict[str, str]) -> None:
    """Writes the relative error of what the network adds to its image, against the formulas in float64."""
    exact = networks.reference(NETWORK, bench, VARIANTS[name].patched)["output"] - bench.image
    added = output.double() - bench.image.to(output.dtype).double()
    run.rows.write("accuracy", variant=name, **where, error=relative(added, exact))
