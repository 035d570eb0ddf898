"""What a projection becomes part of: its weight, and the matrices that heads form with it."""

from __future__ import annotations

from torch import Tensor, nn

from ..precision import without_autocast
from ..terms import Map


def foldable_weight(project: Map) -> tuple[Tensor | None, Tensor | None]:
    """Weight (C, C) and bias of a projection that may be folded, or (None, None).

    Only a bare ``nn.Conv2d`` or ``nn.Linear`` may: anything hooked, parametrised or wrapped does more than its weight
    says.
    """
    if not (type(project) is nn.Conv2d or type(project) is nn.Linear) or does_more(project):
        return None, None
    return project.weight.flatten(1), project.bias


def does_more(module: nn.Module) -> bool:
    """Whether a call of the module is more than its class says: hooked, or its forward replaced on the instance."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in module.__dict__ or any(hooks)


def through_blocks(left: Tensor, blocks: Tensor) -> Tensor:
    """``left @ blockdiag(blocks)``: (O, h*c) and (B, h, c, j) -> (B, O, h*j), in their common dtype."""
    heads, rows = blocks.shape[1:3]
    with without_autocast(left):
        product = left.unflatten(1, (heads, rows)).transpose(0, 1) @ blocks
    return product.transpose(1, 2).flatten(2)
