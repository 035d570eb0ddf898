"""Adds LoRA to the layers of a network, and removes it, by the library PEFT."""

from __future__ import annotations

import re
from copy import deepcopy

from torch import nn

from ...errors import ConfigError
from ...patching import plan
from ...primitives import ExDAModule
from ...primitives.base import NEW_NAMES
from ..shared.packages import peft
from .config import LoraConfig

_ADAPTED = "lora_A"
"""The attribute that marks a layer of PEFT's, so that PEFT need not be imported to find it."""


def add_lora(net: nn.Module, config: LoraConfig) -> None:
    """Adds LoRA in place; freezes no parameter, and the network's outputs stay the same.

    Raises:
        ConfigError: if there is no layer that can have it.
        ExDAError: if PEFT is not installed.
    """
    names = adaptable(net, config.layers)
    if not names:
        raise ConfigError(f"lora.layers: found {config.layers!r}, but there is no layer that can have it.")
    # lora_alpha = r: PEFT scales the product by their quotient, which is then 1.
    told = peft().LoraConfig(
        r=config.rank, lora_alpha=config.rank, target_modules="|".join(re.escape(name) for name in names)
    )
    # PEFT freezes all parameters but its own; the recipe decides on that, so it is undone.
    trained = {parameter: parameter.requires_grad for parameter in net.parameters()}
    peft().inject_adapter_in_model(told, net)
    for parameter, requires_grad in trained.items():
        parameter.requires_grad_(requires_grad)


def adaptable(net: nn.Module, layers: str) -> list[str]:
    """Lists the names of the host's ungrouped convolutions and linear layers.

    Args:
        net: the network.
        layers: ``"attention"`` for the layers inside of attentions that are patched or could be, ``"all"`` for all.
    """
    ours = [name for name, module in net.named_modules() if isinstance(module, ExDAModule)]
    # Patched attentions, and those that `plan` would patch: a network may be patched in part.
    attentions = [*ours, *(match.name for match in plan(net).matches)] if layers == "attention" else [""]
    added = tuple(f"{name}.{new}." for name in ours for new in NEW_NAMES)
    return [
        name
        for name, module in net.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and any(name.startswith(f"{attention}." if attention else "") for attention in attentions)
        and not name.startswith(added)
    ]


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
    if not any(hasattr(module, _ADAPTED) for module in net.modules()):
        return net
    copied = deepcopy(net)
    for name, module in list(copied.named_modules()):
        if hasattr(module, _ADAPTED):
            if merge:
                module.merge()
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, module.get_base_layer())
    return copied
