"""Checks the gradients of fused blocks against the printed formulas in float64, parameter by parameter."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.workbench.bench.check import MARGIN, distance, relative
from exda_primitives.workbench.bench.precision import FLOAT64, PRECISIONS, Precision
from exda_primitives.workbench.bench.steps import Signals

from .. import blocks, tuning
from ..blocks import Block
from ..launches import Recording
from ..stage import Run
from .training import BATCH, SIDE

LEAST = 2e-5
"""Relative error that is always allowed: that of float32 where sums over all pixels cancel."""

_BEYOND = 10.0
"""Allowed ratio of a single gradient's error to the modules' own: for a gradient of one number, rounding is chance."""

_WORST = 5
"""Number of worst gradients that a row lists, each with its error and the modules' own."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precisions", nargs="+", choices=sorted(PRECISIONS), required=True)


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    for name in options.precisions:
        for block in _cases():
            yield Recording(block, name, training=True, every=False)


def run(run: Run, options: argparse.Namespace) -> None:
    tuning.first_configuration()
    for name in options.precisions:
        precision = PRECISIONS[name]
        for block in _cases():
            if run.left() < 0:
                return
            with run.surviving(case=block.name, precision=name), precision.settings():
                _check(run, block, precision)


def _cases() -> list[Block]:
    return list(blocks.of_network(SIDE, SIDE, batch=BATCH))


def _check(run: Run, block: Block, precision: Precision) -> None:
    image = blocks.image(block, precision)
    with exda.backend("reference"):
        exact = _gradients(run, blocks.plain(block), image, FLOAT64)
        modules = _gradients(run, blocks.plain(block), image, precision)
    found = _gradients(run, blocks.fused(block), image, precision)
    error, own = distance(found, exact).relative, distance(modules, exact).relative
    allowed = max(MARGIN * own, LEAST)
    # One by one as well: in the error of all together, large gradients hide small ones.
    each = {name: (relative(found[name], wanted), relative(modules[name], wanted)) for name, wanted in exact.items()}
    beyond = {name: ours / max(theirs, own, LEAST) for name, (ours, theirs) in each.items()}
    # ``not <=`` instead of ``>``, so that NaN counts as wrong.
    wrong = [name for name in each if not beyond[name] <= _BEYOND]
    worst = sorted(each, key=lambda name: (name not in wrong, -beyond[name]))[:_WORST]
    run.rows.write(
        "gradients",
        ok=error <= allowed and not wrong,
        case=block.name,
        precision=precision.name,
        shape=block.shape,
        error=error,
        own_error=own,
        allowed=allowed,
        wrong=wrong,
        worst={name: each[name] for name in worst},
    )


def _gradients(run: Run, model: nn.Module, image: Tensor, precision: Precision) -> Signals:
    """Returns the gradients of a random linear functional of the output, for the input (``x``) and all parameters."""
    where = run.device.torch
    weights = torch.float32 if precision.half else precision.dtype
    model = model.to(where, weights)
    x = image.to(where, weights).requires_grad_()
    with torch.autocast(where.type, precision.dtype) if precision.half else nullcontext():
        out = model(x)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaves = {"x": x, **dict(model.named_parameters())}
    gradients = torch.autograd.grad(out, list(leaves.values()), upstream.to(where, out.dtype))
    return {name: gradient.cpu() for name, gradient in zip(leaves, gradients, strict=True)}
