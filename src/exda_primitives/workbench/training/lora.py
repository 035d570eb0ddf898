"""LoRA beside the layers of a network, by the library PEFT."""

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
"""The attribute by which a layer of PEFT's is known without PEFT."""


def add_lora(net: nn.Module, config: LoraConfig) -> None:
    """Puts it in, in place; no parameter is frozen, and the network computes what it computed.

    Raises:
        ConfigError: where no layer can have it.
        ExDAError: where PEFT is missing.
    """
    names = adaptable(net, config.layers)
    if not names:
        raise ConfigError(f"lora.layers: found {config.layers!r}, but there is no layer that can have it.")
    told = peft().LoraConfig(
        r=config.rank, lora_alpha=config.rank, target_modules="|".join(re.escape(name) for name in names)
    )
    trained = {parameter: parameter.requires_grad for parameter in net.parameters()}
    peft().inject_adapter_in_model(told, net)
    for parameter, requires_grad in trained.items():
        parameter.requires_grad_(requires_grad)


def adaptable(net: nn.Module, layers: str) -> list[str]:
    """Names of the ungrouped convolutions and linear layers that are the host's: of its attentions, or all.

    An attention's own is one that would get primitives, or has got them.
    """
    ours = [name for name, module in net.named_modules() if isinstance(module, ExDAModule)]
    # Of a network that is patched in part, the plan has the rest.
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
    """The matrices by name; none without LoRA."""
    return {name: parameter for name, parameter in net.named_parameters() if ".lora_" in f".{name}"}


def without_lora(net: nn.Module, *, merge: bool) -> nn.Module:
    """The network itself where it has none, else a copy without it.

    Args:
        net: with LoRA or not.
        merge: add the products to the weights that they stand beside, so that the copy computes what the network does
            (to rounding); otherwise these are left as they are.
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
