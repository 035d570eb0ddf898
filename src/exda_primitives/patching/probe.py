"""The numerical probe: does a module compute what a family says it computes?

Names and shapes do not tell: attentions with the very parameters of Restormer's that use ReLU for softmax, windows,
rows or columns are in public use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..primitives import ExDAConfig
from ..surgery.copies import detached, isolated_global_state, random_maps, unheard
from ..surgery.randomness import OwnRandomNumbers
from ..surgery.signatures import signature_problem
from .adapter import Family
from .shapes import TEMPERATURE

PLAIN = ExDAConfig(tokens=0, value="none")
# (batch, height, width): a batch that is not 1, odd sizes, and one larger than the windows in use (up to 64).
SIZES = ((2, 16, 24), (2, 7, 13), (1, 72, 80))
# Seen: at most 2e-6 for true matches in float32, 0.14 to 1 for false ones.
TOLERANCE = 1e-4


def probe(module: nn.Module, family: Family, parts: Mapping[str, str]) -> str | None:
    """Why ``module`` is not the family's attention, or None where it is.

    A copy gets random weights (a zero projection would pass anything) and is run beside the family's plain attention
    around the same layers, in eval mode at several sizes and in training mode at one.
    """
    name = parts[TEMPERATURE]
    if problem := signature_problem(module, family.inputs, "this attention"):
        return problem
    with isolated_global_state():
        try:
            (host,) = detached((module,), torch.float32)
            generator = torch.Generator().manual_seed(0)
            _randomise(host, name, generator)
            claim = unheard(family.replacement.adopt(host, parts, PLAIN))
        except Exception as error:
            return f"a copy to probe could not be made: {type(error).__name__}: {error}"
        for training, sizes in ((False, SIZES), (True, SIZES[:1])):
            host.train(training)
            for part in parts.values():
                # Both call the very layers: what is random in them, an adapter's dropout, tells nothing.
                if isinstance(layer := getattr(host, part), nn.Module):
                    layer.eval()
            for batch, height, width in sizes:
                shape = (batch, claim.dim, height, width)
                inputs = family.arguments(random_maps(family.inputs, shape, torch.float32, generator))
                informed = partial(claim, **family.known_of(height, width))
                if problem := _difference(host, informed, inputs):
                    mode = "training" if training else "eval"
                    return f"{problem} on {shape} in {mode} mode"
    return None


def _randomise(host: nn.Module, temperature: str, generator: torch.Generator) -> None:
    for name, parameter in host.named_parameters():
        if name == temperature:
            # Large enough for the softmax to be far from uniform.
            parameter.uniform_(2, 6, generator=generator)
        else:
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.normal_(std=fan_in**-0.5, generator=generator)


def _difference(host: nn.Module, claim: Callable[..., Tensor], inputs: Sequence[Tensor]) -> str | None:
    try:
        with OwnRandomNumbers():
            # Some hosts write into their input.
            expected = host(*(x.clone() for x in inputs))
    except Exception as failure:
        return f"its forward failed ({type(failure).__name__}: {str(failure).partition(chr(10))[0]})"
    if not isinstance(expected, Tensor) or expected.shape != inputs[0].shape:
        found = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        return f"it returned {found} instead of one map"
    got = claim(*inputs)
    error = float((got - expected).abs().max() / expected.abs().max())
    # Written so that a NaN fails.
    return None if error <= TOLERANCE else f"its output differs by {error:.2g} relative to its maximum"
