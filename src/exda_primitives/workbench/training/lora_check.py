"""Checks before a run that LoRA merged into the layers of a network will compute what LoRA beside them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ConfigError, some_of
from .lora import without_lora
from .lora_layers import adapted

_RANDOM = 0.1
"""Norm of the random products, relative to that of their layers' weights."""
_TOLERANCE = 1e-3
"""Largest difference by merging, relative to what LoRA changes; rounding in float32 gives 1e-6 to 1e-5."""


@torch.no_grad()
def check_merging(net: nn.Module, image: Tensor) -> None:
    """Checks that no layer's weight is read beside calling the layer, as by functional convolutions that share it.

    LoRA beside a layer acts in its calls alone, a merged weight wherever it is read.

    Args:
        net: a network with LoRA, on the CPU; it stays as it is.
        image: an input, (B, C, H, W).

    Raises:
        ConfigError: if a weight is read so and the output, with random matrices, changes by merging; the message names
            the layers.
    """
    copied = deepcopy(net).eval()
    layers = adapted(copied)
    with torch.random.fork_rng(devices=[]):
        with _Reads(layers) as reads:
            copied(image)
        # Reads alone are no error, as of `x.to(layer.weight)`; nor differences, as rounding may change a sorted order.
        if reads.names and _differs(copied, image, layers):
            raise ConfigError(
                f"lora: {type(net).__name__} reads the weights of {some_of(reads.names)} beside calling these layers, "
                f"so that LoRA merged into them would compute otherwise than was trained. Choose other layers by "
                f"lora.layers, or train primitives in place of LoRA."
            )


class _Reads(TorchFunctionMode):
    """Records the names of layers whose weight is an argument of an operation outside of the layer's own call."""

    def __init__(self, layers: Mapping[str, Any]) -> None:
        super().__init__()
        self.names: list[str] = []
        self._layers: dict[int, str] = {}
        self._called: list[int] = []
        for name, layer in layers.items():
            host = layer.get_base_layer()
            weight = id(host.weight)
            if self._layers.setdefault(weight, name) == name:
                host.register_forward_pre_hook(lambda *_, weight=weight: self._called.append(weight))
                host.register_forward_hook(lambda *_: self._called.pop() and None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the function."""
        result = func(*args, **(kwargs or {}))
        # Those that return no tensor read a dtype, a device or a shape.
        if next(_tensors(result), None) is not None:
            for weight in {id(each) for each in _tensors([args, kwargs])} & self._layers.keys() - {*self._called}:
                name = self._layers[weight]
                self.names += [] if name in self.names else [name]
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))


def _differs(net: nn.Module, image: Tensor, layers: Mapping[str, Any]) -> bool:
    """Returns whether merging changes the output by more than rounding; gives the layers random matrices."""
    for layer in dict.fromkeys(layers.values()):
        for adapter, b in layer.lora_B.items():
            nn.init.normal_(b.weight)
            b.weight.mul_(_RANDOM * layer.get_base_layer().weight.norm() / layer.get_delta_weight(adapter).norm())
    outputs = []
    for each in (net, without_lora(net, merge=True), without_lora(net, merge=False)):
        # For networks that draw random numbers.
        torch.manual_seed(0)
        outputs.append(each(image))
    beside, merged, without = outputs
    return bool((merged - beside).abs().max() > _TOLERANCE * (beside - without).abs().max())
