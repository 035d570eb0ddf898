"""When a layer is its weight and bias and nothing else: the one rule by which a weight is read in place of a call.

Whatever works by the call of a module (hooks, parametrisations, pruning, offloading, sharding, quantisation, adapters
around a layer) has no effect, or the wrong one, where its weight is read. All backends ask here.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as of_all_modules

# Filled and emptied in place by `torch.nn.modules.module.register_module_*_hook`, whose hooks fire for every module.
_GLOBAL_HOOKS = (
    of_all_modules._global_forward_hooks,
    of_all_modules._global_forward_pre_hooks,
    of_all_modules._global_backward_hooks,
    of_all_modules._global_backward_pre_hooks,
)

# A subclass has operations of its own: it is quantised, sharded, or records a graph. Exporters put the last one of
# these, a shape without numbers, in a parameter's place.
_PLAIN = (Tensor, nn.Parameter, FakeTensor)


def held(module: nn.Module, name: str) -> Tensor | None:
    """A tensor of a module by its name there: faster than ``getattr``, which asks one dictionary after the other."""
    # Replicas and flat shards keep tensors outside of the parameters.
    found = module._parameters.get(name)
    return getattr(module, name) if found is None else found


def does_more(module: nn.Module) -> bool:
    """Whether a call of the module is more than its class says: hooked, or its forward replaced on the instance."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or _GLOBAL_HOOKS[0]
        or _GLOBAL_HOOKS[1]
        or _GLOBAL_HOOKS[2]
        or _GLOBAL_HOOKS[3]
    )


def is_bare(layer: object) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Whether the layer is a convolution or linear layer whose call is its weight and bias and nothing else."""
    if not (type(layer) is nn.Conv2d or type(layer) is nn.Linear) or does_more(layer):
        return False
    # Not as attributes, which take a call each. Replicas and flat shards keep tensors outside of the parameters.
    held = layer._parameters if "weight" in layer._parameters else layer.__dict__
    weight, bias = held.get("weight"), held.get("bias")
    dense = weight is not None and type(weight) in _PLAIN and weight.layout is torch.strided
    return dense and (bias is None or type(bias) in _PLAIN)


def is_linear(layer: object) -> TypeGuard[nn.Linear]:
    """Whether the layer is a bare linear one."""
    return type(layer) is nn.Linear and is_bare(layer)


def is_pointwise(layer: object) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a bare 1x1 convolution of all channels."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and is_bare(layer)
    )


def is_depthwise(layer: object) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a bare 3x3 convolution of every channel by itself that keeps the map's size."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.padding_mode == "zeros"
        and is_bare(layer)
    )
