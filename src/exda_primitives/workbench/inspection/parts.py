"""What an ExDA attention makes of its input inside: the tokens' maps, the value, the non-linear value."""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ConfigError
from ...ops.layout import to_map
from ...ops.terms import projected
from ...primitives import ExDACrossAttention, ExDAModule, ExDAXCAttention
from ...primitives.packed_qkv import PackedQKVAttention
from .collect import Call


def compact_maps(call: Call) -> Tensor:
    """The compact maps of the call's tokens, (h, K, H', W') float32, each of sum 1."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.token is not None
    maps: Tensor = call.attention.token.maps(spatial(call, call.inputs[call.source]))
    return maps[0].float()


def has_value(module: nn.Module) -> bool:
    """Whether ``value`` knows the attention and its value is non-linear before the aggregation."""
    known = (PackedQKVAttention, ExDACrossAttention, ExDAXCAttention)
    return isinstance(module, known) and module.value is not None and module.config.value_position == "before"


def value(call: Call) -> Tensor:
    """V of a call, (1, C, H, W), as the host's layers project it; see ``has_value``."""
    attention = call.attention
    assert isinstance(attention, ExDAModule)
    x = call.inputs[call.source]
    if isinstance(attention, ExDAXCAttention):
        v: Tensor = attention.part("qkv")(x)[..., -attention.dim :]
        return to_map(v, _grid(attention, call))
    assert isinstance(attention, PackedQKVAttention | ExDACrossAttention)
    # In all families, V comes last.
    projection = attention.terms().qkv if isinstance(attention, PackedQKVAttention) else attention.terms().kv
    return projected(x, projection)[:, -attention.dim :]


def nonlinear_value(call: Call) -> Tensor:
    """V' of a call, (1, C, H, W); see ``has_value``."""
    assert isinstance(call.attention, ExDAModule)
    assert call.attention.value is not None
    made: Tensor = call.attention.value(value(call))
    return made


def spatial(call: Call, x: Tensor) -> Tensor:
    """A call's input or output as a map (1, C, H, W).

    Raises:
        ConfigError: for tokens (1, N, C) whose arrangement the attention does not know.
    """
    if x.ndim == 4:
        return x
    if not isinstance(call.attention, ExDAXCAttention):
        raise ConfigError(
            f"{type(call.attention).__name__}: works on tokens {tuple(x.shape)} and does not say how they lie in the "
            "image; exda.patch(model) makes it known"
        )
    return to_map(x, _grid(call.attention, call))


def _grid(attention: ExDAXCAttention, call: Call) -> tuple[int, int]:
    return attention.map_size(call.inputs[call.source], call.options.get("grid"))
