"""The numerical probe: does a module compute what its family claims?

Names and shapes cannot tell: attentions with exactly Restormer's parameters, but with ReLU in place of the softmax, or
on windows, rows or columns, are in public use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..primitives import ExDAConfig, ExDAModule
from ..surgery.copies import detached, isolated_global_state, random_maps, without_global_hooks
from ..surgery.randomness import OwnRandomNumbers
from ..surgery.signatures import signature_problem
from .adapter import Family

# The family's attention without any primitive.
PLAIN = ExDAConfig(tokens=0, value="none")
# Longer than test-time windows, which are 1.5 times as wide as training images: up to 1.5 * 384 = 576.
LONG = 580
# The strips' other side: what a window's length does, two rows of pixels show as well as more, at a lower cost.
NARROW = 2
# (batch, height, width): a batch above 1, odd sizes, and strips longer than windows in both directions.
SIZES = ((1, 16, 32), (2, 7, 13), (1, NARROW, LONG), (1, LONG, NARROW))
# Ranges of the temperature, one for each map in eval mode. A host may limit it, or take its absolute value: it has to
# be small, large and negative too. Mostly, logits, temperature * cosine, are to make a softmax far from uniform.
_MODERATE = (2.0, 6.0)
TEMPERATURES = (_MODERATE, (120.0, 200.0), (-6.0, -2.0), _MODERATE, (0.0, 0.02))
# Relative to the maximum. Observed in float32: at most 2e-6 for true matches, 0.14 to 1 for false ones.
TOLERANCE = 1e-4
# Observed: at most 3e-6 for true matches.
GRADIENT_TOLERANCE = 1e-3
# A larger number in a module's settings is not taken for a window's side.
_LONGEST = 2048


def probe(module: nn.Module, family: Family, parts: Mapping[str, str]) -> str | None:
    """Returns why ``module`` is not the family's attention, or None if it is.

    A copy gets random weights (with a zero projection anything would pass) and is compared with the family's plain
    attention around the same layers: outputs in eval mode at several sizes, outputs and gradients in training mode at
    one.

    Args:
        module: the candidate; not changed.
        family: the family that claims it.
        parts: name in the replacement's ``PARTS`` -> attribute of ``module``.
    """
    # Inside of the softmax: the temperature, mostly.
    name = next(parts[part] for part in family.replacement.PARTS if part in parts)
    if problem := signature_problem(module, family.inputs, "this attention", family.extra_inputs_of(module)):
        return problem
    with isolated_global_state():
        try:
            (host,) = detached((module,), torch.float32)
            generator = torch.Generator().manual_seed(0)
            _randomise(host, generator)
            # The user's model may be frozen; the probe needs gradients.
            host.requires_grad_(True)
            # What the family claims, computed by the same layers: any difference is the module's own doing.
            claim = without_global_hooks(family.replacement.adopt(host, parts, PLAIN))
        except Exception as error:
            return f"a copy to probe could not be made: {type(error).__name__}: {error}"
        problems: list[_Problem] = []
        only = family.only_size(module, parts)
        every = _sizes(module, claim.dim) if only is None else [(1, *only), (4, *only)]
        # (size, range of the temperature), in eval mode and in training mode.
        # After all sizes, the second once more: it is the smallest.
        evaluated = [(every[i if i < len(every) else 1], each) for i, each in enumerate(TEMPERATURES)]
        for training, cases in ((False, evaluated), (True, [(every[1], _MODERATE)])):
            host.train(training)
            for part in parts.values():
                # Both sides call these layers: randomness inside one, such as an adapter's dropout, tells nothing.
                if isinstance(layer := getattr(host, part), nn.Module):
                    layer.eval()
            for size, temperatures in cases:
                batch, *sides = size
                with torch.no_grad():
                    getattr(host, name).uniform_(*temperatures, generator=generator)
                learnt = [getattr(host, name)] if training else []
                # Rounding errors of the cosines grow with the temperature.
                tolerance = TOLERANCE * max(1.0, temperatures[1] / _MODERATE[1])
                found = _problems_at(size, host, claim, family, parts, learnt, generator, tolerance)
                narrow = only is None and NARROW in sides
                if narrow and found and all(problem.failed for problem in found):
                    # Reflecting at the border, for one, takes more pixels than the padding has.
                    height, width = (2 * side if side == NARROW else side for side in sides)
                    wider = batch, height, width
                    found = _problems_at(wider, host, claim, family, parts, learnt, generator, tolerance)
                problems += found
                # A wrong result settles it. After an error, another size may still show what the module computes.
                if not all(problem.failed for problem in problems):
                    break
            if problems:
                # A wrong result says more than an error: False sorts before True.
                return min(problems, key=lambda problem: problem.failed).said
    return None


class _Problem(NamedTuple):
    """What is wrong, for the near miss's reason, and whether the module raised an error."""

    said: str
    failed: bool


def _problems_at(
    size: tuple[int, int, int],
    host: nn.Module,
    claim: ExDAModule,
    family: Family,
    parts: Mapping[str, str],
    learnt: Sequence[nn.Parameter],
    generator: torch.Generator,
    tolerance: float,
) -> list[_Problem]:
    """Compares on random maps of a size (batch, height, width), once for each way to call the attention."""
    batch, height, width = size
    shape = (batch, claim.dim, height, width)
    maps = random_maps(family.inputs, shape, torch.float32, generator)
    inputs = family.make_inputs(maps)
    informed = partial(claim, **family.forward_kwargs(height, width))
    mode = "training" if learnt else "eval"
    return [
        _Problem(f"{found.said} on {shape} in {mode} mode", found.failed)
        for more in family.extra_arguments(host, parts, maps[0], generator)
        if (found := _difference(host, informed, inputs, more, learnt, tolerance))
    ]


def _sizes(module: nn.Module, channels: int) -> list[tuple[int, int, int]]:
    """Returns ``SIZES``, with strips longer than any window that the module's attributes name."""
    # Integers among the attributes that may be a window's side; the number of channels is not one.
    named: list[int] = []
    for setting in vars(module).values():
        several = setting if isinstance(setting, tuple | list) else [setting]
        named += [each for each in several if isinstance(each, int) and LONG <= each <= _LONGEST and each != channels]
    longer = {LONG: max(named, default=LONG - 1) + 1}
    return [(batch, longer.get(height, height), longer.get(width, width)) for batch, height, width in SIZES]


def _randomise(host: nn.Module, generator: torch.Generator) -> None:
    for parameter in host.parameters():
        # Keeps maps at about unit variance through every layer.
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.normal_(std=fan_in**-0.5, generator=generator)


def _difference(
    host: nn.Module,
    claim: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    more: Sequence[Tensor | None],
    learnt: Sequence[nn.Parameter],
    tolerance: float,
) -> _Problem | None:
    """Compares outputs and, if ``learnt`` is not empty, the gradients of ``learnt`` and of the inputs."""
    with torch.set_grad_enabled(bool(learnt)):
        inputs = [x.detach().requires_grad_() for x in inputs] if learnt else inputs
        try:
            with OwnRandomNumbers():
                # Some hosts write into their input.
                expected = host(*(x.clone() for x in inputs), *more)
        except Exception as failure:
            line = str(failure).partition(chr(10))[0]
            return _Problem(f"its forward failed ({type(failure).__name__}: {line})", True)
        if not isinstance(expected, Tensor) or expected.shape != inputs[0].shape:
            found = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
            return _Problem(f"it returned {found} instead of one map", False)
        if tolerance > TOLERANCE and not expected.isfinite().all():
            # Of large temperatures some hosts make infinities: Histoformer's softmax_1 subtracts no maximum.
            return None
        moved = _with_more_contrast(claim, (*inputs, *more), learnt[0]) if learnt else None
        got = claim(*inputs, *more)
        error = _relative(got, expected)
        # Written so that a NaN fails.
        if not error <= tolerance:
            return _Problem(f"its output differs by {error:.2g} relative to its maximum", False)
        return None if moved is None else _gradient_difference(expected, got, moved, (*learnt, *inputs))


def _with_more_contrast(claim: Callable[..., Tensor], arguments: Sequence[Tensor | None], learnt: Tensor) -> Tensor:
    """Returns the claim's output with a temperature (or other parameter of the logits) that is larger by a tenth."""
    # By ``data``: autograd shall neither record it nor find the parameter changed.
    kept, learnt.data = learnt.data, 1.1 * learnt.data
    try:
        with torch.no_grad():
            return claim(*arguments)
    finally:
        learnt.data = kept


def _gradient_difference(expected: Tensor, got: Tensor, moved: Tensor, leaves: Sequence[Tensor]) -> _Problem | None:
    """Compares gradients; ``moved`` is the output for the first of ``leaves``, the temperature, a little larger."""
    if not expected.requires_grad:
        return _Problem("no gradient passes it", False)
    # The gradient at the output: another number for every entry, and the direction in which the temperature moves the
    # output. Without that, a temperature's gradient is a sum over all pixels that may cancel and be mostly rounding:
    # up to 0.003 was observed for a true match with one head of 64 channels.
    weights = torch.linspace(-1, 1, got.numel()).view_as(got)
    direction = moved - got.detach()
    if scale := float(direction.abs().max()):
        weights += direction / scale
    theirs: tuple[Tensor | None, ...] = torch.autograd.grad((expected * weights).sum(), leaves, allow_unused=True)
    ours = torch.autograd.grad((got * weights).sum(), leaves)
    for i, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        of = "temperature" if i == 0 else "input"
        if their is None:
            return _Problem(f"no gradient reaches its {of}", False)
        # Both are zero if a softmax has one entry (c = 1): the relative error would be 0 / 0.
        error = 0.0 if torch.equal(our, their) else _relative(our, their)
        if not error <= GRADIENT_TOLERANCE:
            return _Problem(f"the gradient of its {of} differs by {error:.2g} relative to its maximum", False)
    return None


def _relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max())
