"""Recognises Restormer's gated feed-forward by its shapes and by what it computes."""

from __future__ import annotations

from functools import partial
from itertools import permutations

from torch import Tensor, nn

from ..ops.reference import step
from ..ops.terms import GatedTerms
from .compare import computes, observed


def gated_convolutions(module: nn.Module, maps: tuple[Tensor, ...]) -> tuple[str, str, str] | None:
    """Returns names of the convolutions C -> 2M, depthwise, M -> C of a gated feed-forward; None for anything else.

    ``a, b = chunk(DWConv3x3(Conv1x1(x)), 2)``, output ``Conv1x1(GELU(a) * b)``.

    Args:
        module: the module, with random parameters in float64.
        maps: maps (B, C, H, W) to try it on.
    """
    held = {name: child for name, child in module.named_children() if [*child.parameters()]}
    convolutions = {name: child for name, child in held.items() if type(child) is nn.Conv2d}
    if len(held) != 3 or len(convolutions) != 3 or [*module.parameters(recurse=False), *module.buffers()]:
        return None
    # Which convolution plays which part is told by shapes and result, not by names.
    found = [(names, GatedTerms(*(convolutions[name] for name in names))) for names in permutations(convolutions, 3)]
    fitting = [(names, terms) for names, terms in found if _fits(terms, maps[0].shape[1])]
    seen = observed(module, maps) if fitting else None
    if seen is not None:
        for names, terms in fitting:
            if computes(seen, partial(step.gated, terms=terms)):
                return names
    return None


def _fits(terms: GatedTerms, channels: int) -> bool:
    project_in, depthwise, project_out = (conv for conv in terms if isinstance(conv, nn.Conv2d))
    hidden = project_out.in_channels
    return (
        (project_in.in_channels, project_in.out_channels) == (channels, 2 * hidden)
        and depthwise.groups == depthwise.in_channels == depthwise.out_channels == 2 * hidden
        and project_out.out_channels == channels
        and all(conv.kernel_size == (1, 1) and conv.groups == 1 for conv in (project_in, project_out))
    )
