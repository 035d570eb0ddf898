"""Adds LoRA to the layers of a network, and removes it, by the library PEFT."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ...errors import ConfigError
from ..shared.packages import peft
from .config import LoraConfig
from .lora_layers import adapted, problems


def add_lora(net: nn.Module, config: LoraConfig) -> dict[str, str]:
    """Adds LoRA in place; freezes no parameter, and the network's outputs stay the same.

    A layer that is called under several names has one LoRA under all of them.

    Returns:
        Name of each layer of the asked ones that gets none, since merged into its weight LoRA would compute otherwise
        -> the reason.

    Raises:
        ConfigError: if there is no layer that can have it.
        ExDAError: if PEFT is not installed.
    """
    found = problems(net, config.layers)
    left_out = {name: problem for name, problem in found.items() if problem is not None}
    names = [name for name in found if name not in left_out]
    if not names:
        reasons = "".join(f"\n  {name}: {problem}" for name, problem in left_out.items())
        raise ConfigError(f"lora.layers: found {config.layers!r}, but there is no layer that can have it.{reasons}")
    # lora_alpha = r: PEFT scales the product by their quotient, which is then 1.
    told = peft().LoraConfig(
        r=config.rank, lora_alpha=config.rank, target_modules="|".join(re.escape(name) for name in names)
    )
    # PEFT freezes all parameters but its own; the recipe decides on that, so it is undone.
    trained = {parameter: parameter.requires_grad for parameter in net.parameters()}
    peft().inject_adapter_in_model(told, net)
    for parameter, requires_grad in trained.items():
        parameter.requires_grad_(requires_grad)
    held = adapted(net)
    layers = {layer.get_base_layer(): layer for layer in held.values()}
    for layer in layers.values():
        _take_geometry(layer)
    # PEFT adapts a shared layer under its first name alone.
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if module in layers and name.removesuffix(".base_layer") not in held:
            net.set_submodule(name, layers[module])
    return left_out


def lora_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Returns name -> parameter of LoRA's matrices; empty without LoRA."""
    return {name: parameter for name, parameter in net.named_parameters() if ".lora_" in f".{name}"}


def without_lora(net: nn.Module, *, merge: bool) -> nn.Module:
    """Returns a copy of the network without LoRA, or the network itself if it has none.

    Args:
        net: a network with LoRA or without.
        merge: add LoRA's products to the weights of their layers, so that the copy computes what the network does (up
            to rounding); otherwise these weights stay as they are.
    """
    if not adapted(net):
        return net
    # Weights that hooks compute (`torch.nn.utils.weight_norm`) are results of the last call, which cannot be copied.
    held = [each for module in net.modules() for each in vars(module).values() if isinstance(each, Tensor)]
    copied = deepcopy(net, {id(each): each.detach().clone() for each in held if not each.is_leaf})
    for name, layer in adapted(copied).items():
        if merge and not layer.merged:
            layer.merge()
        copied.set_submodule(name, layer.get_base_layer())
    return copied


def _take_geometry(layer: Any) -> None:
    """Lets LoRA's first convolution pad and dilate as its host does; PEFT passes on neither."""
    host = layer.get_base_layer()
    if isinstance(host, nn.Conv2d):
        for a in layer.lora_A.values():
            a.dilation, a.padding_mode = host.dilation, host.padding_mode
            a._reversed_padding_repeated_twice = host._reversed_padding_repeated_twice
