"""Checks fused blocks against the printed formulas in float64, and each kernel's configurations against each other."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.workbench.bench.check import MARGIN, relative
from exda_primitives.workbench.bench.precision import PRECISIONS, Precision

from .. import blocks, tuning
from ..blocks import Block
from ..launches import Recording
from ..stage import Run

LEAST = 2e-6
"""Relative error that is always allowed: that of float32 after this many roundings."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precisions", nargs="+", choices=sorted(PRECISIONS), required=True)
    parser.add_argument("--cases", nargs="+", help="names of blocks; by default all")
    parser.add_argument("--configurations", action="store_true", help="compare all configurations of each kernel")


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    for name in options.precisions:
        for block in _cases(options):
            yield Recording(block, name, every=options.configurations)


def run(run: Run, options: argparse.Namespace) -> None:
    agreement = tuning.Agreement(run.rows)
    cases, right, wrong = _cases(options), 0, 0
    if options.configurations:
        tuning.untimed()
    else:
        tuning.first_configuration()
    for name in options.precisions:
        precision = PRECISIONS[name]
        for block in cases:
            if run.left() < 0:
                break
            with run.surviving(case=block.name, precision=name), precision.settings(), torch.no_grad():
                if options.configurations:
                    with agreement.checked():
                        ok = _check(run, block, precision)
                else:
                    ok = _check(run, block, precision)
                right, wrong = right + ok, wrong + (not ok)
    run.rows.write(
        "correctness",
        right=right,
        not_right=wrong,
        asked=len(cases) * len(options.precisions),
        configurations=agreement.compared,
        disagreeing=agreement.disagreeing,
    )


def _cases(options: argparse.Namespace) -> list[Block]:
    return [block for block in blocks.strips() if options.cases is None or block.name in options.cases]


def _check(run: Run, block: Block, precision: Precision) -> bool:
    """Writes a row; returns whether the block is accurate, repeatable and computed by kernels alone."""
    where, dtype = run.device.torch, precision.dtype
    plain, fused = blocks.plain(block), blocks.fused(block).to(where, dtype)
    image = blocks.image(block, precision)
    x = image.to(where, dtype)
    # ``own``: the error of the unfused modules in the same precision, by which the kernels' error is judged.
    with exda.backend("reference"):
        exact = plain.double().to(where)(image.to(where)) - image.to(where)
        own = _error(plain.to(where, dtype), x, exact)
    others = [str(part) for part in exda.backend_report(fused, block.height, block.width).parts if part.reason]
    begun = time.perf_counter()
    first = fused(x)
    run.device.wait()
    seconds = time.perf_counter() - begun
    error = relative(first - x, exact)
    channels_last = _error(fused, x.to(memory_format=torch.channels_last), exact)
    same = torch.equal(fused(x), first)
    allowed = max(MARGIN * own, LEAST)
    ok = error <= allowed and channels_last <= allowed and same and not others
    run.rows.write(
        "block",
        ok=ok,
        case=block.name,
        precision=precision.name,
        shape=block.shape,
        error=error,
        channels_last=channels_last,
        own_error=own,
        allowed=allowed,
        same_bits_again=same,
        not_on_kernels=others,
        first_seconds=seconds,
    )
    return ok


def _error(model: nn.Module, x: Tensor, exact: Tensor) -> float:
    """Returns the relative error of what the block adds to its map; including the map would hide it."""
    return relative(model(x) - x, exact)
