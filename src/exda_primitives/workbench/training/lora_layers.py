"""Which layers can have LoRA: those that compute the same with its product beside them as added to their weight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.bare import does_more, is_bare
from ...patching import plan
from ...primitives import ExDAModule
from ...primitives.base import NEW_NAMES

_ADAPTED = "lora_A"
"""The attribute that marks a layer of PEFT's, so that PEFT need not be imported to find it."""
_GEOMETRY = ("stride", "padding", "dilation", "padding_mode")


def problems(net: nn.Module, layers: str) -> dict[str, str | None]:
    """Finds the host's ungrouped convolutions and linear layers, and why one cannot have LoRA.

    Args:
        net: a network without LoRA.
        layers: ``"attention"`` for the layers inside of attentions that are patched or could be, ``"all"`` for all.

    Returns:
        Name of each layer, the first of a shared one -> the reason; None if it can have LoRA.
    """
    ours = [name for name, module in net.named_modules() if isinstance(module, ExDAModule)]
    # Patched attentions, and those that `plan` would patch: a network may be patched in part.
    attentions = [*ours, *(match.name for match in plan(net).matches)] if layers == "attention" else [""]
    added = tuple(f"{name}.{new}." for name in ours for new in NEW_NAMES)
    others = tied(net)
    return {
        name: _problem(module, others.get(f"{name}.weight"))
        for name, module in net.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and any(name.startswith(f"{attention}." if attention else "") for attention in attentions)
        and not name.startswith(added)
    }


def adapted(net: nn.Module) -> dict[str, Any]:
    """Returns every layer of PEFT's with LoRA under each of its names, a shared one under several."""
    named = net.named_modules(remove_duplicate=False)
    return {name: module for name, module in named if hasattr(module, _ADAPTED)}


def inexact(net: nn.Module) -> Iterator[str]:
    """Yields what LoRA beside layers computes that no product of two matrices, added to their weights, would."""
    others, layers = tied(net), adapted(net)
    # PEFT adapts a shared layer under its first name alone.
    elsewhere: dict[nn.Module, str] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        if name.removesuffix(".base_layer") not in layers:
            elsewhere.setdefault(module, name)
    for name, layer in layers.items():
        host = layer.get_base_layer()
        found = _problem(host, others.get(f"{name}.base_layer.weight"))
        if found is None and host in elsewhere:
            found = f"is also {elsewhere[host]}, without LoRA"
        if found := found or _otherwise(layer, host):
            yield f"{name}: {found}"


def _problem(layer: nn.Module, other: str | None) -> str | None:
    """Returns why a layer cannot have LoRA; ``other`` is the name of another tensor that holds its weight, too."""
    if layer._parameters.get("weight") is None:
        return "its weight is computed from other tensors"
    if does_more(layer):
        return "has hooks or a forward of its own"
    if not is_bare(layer):
        kinds = f"{type(layer).__name__} with a {type(layer.weight).__name__} as weight"
        return f"is a {kinds}, which may use it otherwise than PyTorch's own layer"
    return f"its weight is also {other}" if other is not None else None


def _otherwise(layer: Any, host: nn.Module) -> str | None:
    """Returns what a layer of PEFT's computes beside its host other than B A x with the host's geometry."""
    if getattr(host, "groups", 1) != 1:
        return "is grouped"
    matrices = {name for name, _ in layer.named_parameters() if not name.startswith("base_layer.")}
    adapter = next(iter(layer.lora_A), "")
    # PEFT before 0.16 has no variants.
    variants = getattr(layer, "lora_variant", {})
    if matrices != {f"lora_A.{adapter}.weight", f"lora_B.{adapter}.weight"} or variants:
        return f"has other LoRA than one pair of matrices ({', '.join(sorted([*matrices, *variants]))})"
    if layer.merged or layer.disable_adapters:
        return "its LoRA is merged or disabled"
    if layer.scaling[adapter] != 1:
        return f"its LoRA is scaled by {layer.scaling[adapter]:g}, expected 1 (lora_alpha = r)"
    for each in _GEOMETRY:
        ours, theirs = getattr(layer.lora_A[adapter], each, None), getattr(host, each, None)
        if ours != theirs:
            return f"its LoRA has {each} {ours!r}, the layer {theirs!r}"
    return None


def tied(net: nn.Module) -> dict[str, str]:
    """Returns name of a parameter or buffer -> name of another one that holds some of the same numbers in memory."""
    # Once for each module: a shared module's weights are not tied to themselves.
    spans = sorted(
        (*_span(tensor), f"{name}.{own}" if name else own)
        for name, module in net.named_modules()
        for own, tensor in chain(module._parameters.items(), module._buffers.items())
        if tensor is not None and type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    )
    found: dict[str, str] = {}
    reached, longest = 0, ""
    for begin, end, name in spans:
        if begin < reached:
            found[name] = longest
            found.setdefault(longest, name)
        if end > reached:
            reached, longest = end, name
    return found


def _span(tensor: Tensor) -> tuple[int, int]:
    """Returns the addresses of a tensor's first byte and after its last; both 0 for one without memory."""
    begin = tensor.data_ptr()
    if not begin:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()
