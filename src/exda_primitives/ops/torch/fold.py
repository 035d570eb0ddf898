"""Folding a projection into the heads' small matrices."""

from __future__ import annotations

from torch import Tensor

from ..bare import is_linear, is_pointwise
from ..precision import without_autocast
from ..terms import ChannelTerms, LinearTerms


def foldable_weight(terms: ChannelTerms) -> tuple[Tensor | None, Tensor | None]:
    """Returns weight (C, C) and bias of the output projection; (None, None) if it has to be called."""
    project = terms.project
    if isinstance(terms, LinearTerms):
        return (project.weight, project.bias) if is_linear(project) else (None, None)
    return (project.weight.flatten(1), project.bias) if is_pointwise(project) else (None, None)


def through_blocks(left: Tensor, blocks: Tensor) -> Tensor:
    """``left @ blockdiag(blocks)``: (O, h*c) and (B, h, c, j) -> (B, O, h*j), in their common dtype."""
    heads, rows = blocks.shape[1:3]
    # Head by head: columns of `left` that belong to a head times its block, (h, O, c) @ (B, h, c, j).
    with without_autocast(left):
        product = left.unflatten(1, (heads, rows)).transpose(0, 1) @ blocks
    return product.transpose(1, 2).flatten(2)
