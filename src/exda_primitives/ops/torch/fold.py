"""Small matrices times large maps, summed in place: the one pass in which an attention writes its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import widen, without_autocast
from ..terms import Map


def foldable_weight(project: Map) -> tuple[Tensor | None, Tensor | None]:
    """Weight (C, C) and bias of a projection that may be folded, or (None, None).

    Only a bare ``nn.Conv2d`` or ``nn.Linear`` may: anything hooked, parametrised or wrapped does more than its weight
    says.
    """
    if not (type(project) is nn.Conv2d or type(project) is nn.Linear) or "forward" in project.__dict__:
        return None, None
    if any((project._forward_hooks, project._forward_pre_hooks, project._backward_hooks, project._backward_pre_hooks)):
        return None, None
    return project.weight.flatten(1), project.bias


def through_blocks(left: Tensor, blocks: Tensor) -> Tensor:
    """``left @ blockdiag(blocks)``: (O, h*c) and (B, h, c, j) -> (B, O, h*j), in their common dtype."""
    heads, rows = blocks.shape[1:3]
    with without_autocast(left):
        product = left.unflatten(1, (heads, rows)).transpose(0, 1) @ blocks
    return product.transpose(1, 2).flatten(2)


class Sum:
    """``sum_i matrix_i @ map_i + shift``, evaluated in one output buffer."""

    def __init__(self) -> None:
        self._terms: list[tuple[Tensor, Tensor]] = []
        self._shift: Tensor | None = None

    def add(self, matrix: Tensor, x: Tensor) -> None:
        """``matrix`` (B, O, M), cast to the map's dtype; ``x`` (B, M, H, W)."""
        x = x.flatten(2)
        self._terms.append((matrix.to(x.dtype), x))

    def shift(self, vector: Tensor) -> None:
        """``vector`` (B, O), added to every pixel."""
        self._shift = vector

    def over(self, like: Tensor, bias: Tensor | None) -> Tensor:
        """The sum plus ``bias`` (O,), as a map (B, O, H, W) of ``like``'s dtype and spatial size."""
        shift = self._shift
        if bias is not None:
            shift = widen(bias) if shift is None else shift + widen(bias)
        (matrix, x), *rest = self._terms
        if shift is None:
            out = torch.bmm(matrix, x)
        else:
            out = torch.baddbmm(shift.to(x.dtype).expand(len(x), -1).unsqueeze(-1), matrix, x)
        for matrix, x in rest:
            # bmm keeps its inputs, never its output, for the backward pass: adding in place is safe.
            out.baddbmm_(matrix, x)
        return out.unflatten(2, like.shape[2:])
