"""Recomputes what an ExDA attention computes inside: the tokens' maps, the value, the non-linear value."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ConfigError
from ...primitives import ExDAModule, ExDAPriorAttention
from .collect import Call
from .layouts import says_size


def compact_maps(call: Call) -> Tensor:
    """Returns the tokens' compact maps softmax(Phi), before upsampling: (h, K, H', W') float32, each of sum 1."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.token is not None
    x = source(call)
    if isinstance(call.attention, ExDAPriorAttention) and len(call.inputs) > 1:
        x = call.attention.modulated(x, call.inputs[1])
    maps: Tensor = call.attention.token.maps(x)
    return maps[0].float()


def has_value(module: nn.Module) -> bool:
    """Returns whether ``value`` can be computed for a module and its value is non-linear before the aggregation."""
    return (
        isinstance(module, ExDAModule)
        and module.linear_value is not None
        and module.value is not None
        and module.config.value_position == "before"
    )


def value(call: Call) -> Tensor:
    """Returns V of a call, (1, C, H, W), as the host's layers project it; requires ``has_value``."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.linear_value is not None
    return call.attention.linear_value(*call.inputs, **call.options)


def nonlinear_value(call: Call) -> Tensor:
    """Returns V' of a call, (1, C, H, W); requires ``has_value``."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.value is not None
    made: Tensor = call.attention.value(value(call))
    return made


def source(call: Call) -> Tensor:
    """Returns the input that the values come from, as a map (1, C, H, W); raises as ``spatial``."""
    return spatial(call, call.inputs[call.family.source])


def spatial(call: Call, x: Tensor) -> Tensor:
    """Returns a call's input or output as a map (1, C, H, W).

    Raises:
        ConfigError: for tokens (1, N, C) whose height and width the attention does not know.
    """
    size = None
    if isinstance(call.attention, ExDAModule):
        size = call.attention.map_size(call.inputs[call.family.source], call.options.get("grid"))
    if size is None and not says_size(call.family):
        raise ConfigError(
            f"{type(call.attention).__name__}: works on tokens {tuple(x.shape)} and does not say how they lie in the "
            "image; exda.patch(model) makes it known"
        )
    return call.family.to_map(x, size)
