"""What an ExDA attention makes of its input inside: the tokens' maps, the value, the non-linear value."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ConfigError
from ...primitives import ExDAModule, ExDAPriorAttention
from .collect import Call
from .layouts import says_size


def compact_maps(call: Call) -> Tensor:
    """The compact maps of the call's tokens, (h, K, H', W') float32, each of sum 1."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.token is not None
    x = source(call)
    if isinstance(call.attention, ExDAPriorAttention) and len(call.inputs) > 1:
        x = call.attention.modulated(x, call.inputs[1])
    maps: Tensor = call.attention.token.maps(x)
    return maps[0].float()


def has_value(module: nn.Module) -> bool:
    """Whether ``value`` knows the attention and its value is non-linear before the aggregation."""
    return (
        isinstance(module, ExDAModule)
        and module.linear_value is not None
        and module.value is not None
        and module.config.value_position == "before"
    )


def value(call: Call) -> Tensor:
    """V of a call, (1, C, H, W), as the host's layers project it; see ``has_value``."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.linear_value is not None
    return call.attention.linear_value(*call.inputs, **call.options)


def nonlinear_value(call: Call) -> Tensor:
    """V' of a call, (1, C, H, W); see ``has_value``."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.value is not None
    made: Tensor = call.attention.value(value(call))
    return made


def source(call: Call) -> Tensor:
    """The input that the values come from, as ``spatial``."""
    return spatial(call, call.inputs[call.family.source])


def spatial(call: Call, x: Tensor) -> Tensor:
    """A call's input or output as a map (1, C, H, W).

    Raises:
        ConfigError: for tokens (1, N, C) whose arrangement the attention does not know.
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
