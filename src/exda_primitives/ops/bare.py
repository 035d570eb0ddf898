"""Whether a layer is bare, nothing but its weight and bias, so that a backend may read these instead of calling it.

Whatever works through the call of a module (hooks, parametrisations, pruning, offloading, sharding, quantisation,
adapters around a layer) has no effect, or a wrong one, if the weight is read directly. All backends share this rule.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as of_all_modules

# PyTorch's dictionaries of hooks that fire for every module (`register_module_*_hook`), changed in place.
_GLOBAL_HOOKS = (
    of_all_modules._global_forward_hooks,
    of_all_modules._global_forward_pre_hooks,
    of_all_modules._global_backward_hooks,
    of_all_modules._global_backward_pre_hooks,
)

# Tensor classes without operations of their own; other subclasses are quantised, sharded, or record a graph. Exporters
# put a FakeTensor, a shape without values, in a parameter's place.
_PLAIN = (Tensor, nn.Parameter, FakeTensor)


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """Returns a module's tensor by attribute name, faster than ``getattr``, which searches several dictionaries."""
    # Replicas of DataParallel and FSDP's flat shards keep tensors as plain attributes.
    found = module._parameters.get(name)
    return getattr(module, name) if found is None else found


def does_more(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class: it is hooked, or its forward replaced on the instance."""
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
    # ``__class__``: the compiler of PyTorch 2.6 knows no ``type`` of a function defined within a forward.
    if not (layer.__class__ is nn.Conv2d or layer.__class__ is nn.Linear) or does_more(layer):
        return False
    # How libraries make convolutions wrap around an image's edges.
    if "_conv_forward" in layer.__dict__:
        return False
    # From the dictionaries: an attribute takes a call each. Replicas and flat shards keep tensors in `__dict__`.
    tensors = layer._parameters if "weight" in layer._parameters else layer.__dict__
    weight, bias = tensors.get("weight"), tensors.get("bias")
    dense = weight is not None and type(weight) in _PLAIN and weight.layout is torch.strided
    return dense and (bias is None or type(bias) in _PLAIN)


def is_linear(layer: object) -> TypeGuard[nn.Linear]:
    """Whether the layer is a bare linear layer."""
    return layer.__class__ is nn.Linear and is_bare(layer)


def is_pointwise(layer: object) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a bare 1x1 convolution without groups."""
    return (
        layer.__class__ is nn.Conv2d
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and is_bare(layer)
    )


def is_depthwise(layer: object) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a bare 3x3 depthwise convolution with zero padding that keeps the map's size."""
    return (
        layer.__class__ is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.padding_mode == "zeros"
        and is_bare(layer)
    )
