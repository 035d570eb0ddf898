"""Cross-covariance attention on maps, so that one test covers all families; and their keys and values."""

from torch import Tensor

import exda_primitives as exda


class XCAOnMaps(exda.ExDAXCAttention):
    """Cross-covariance attention that takes and returns (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        return super().forward(x.flatten(2).transpose(1, 2), size).transpose(1, 2).unflatten(2, size)


def keys_and_values(module: exda.ExDAModule, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """k and v of a channel attention, (B, C, H, W) each, as its host's own layers project them."""
    x = maps[-1]
    if isinstance(module, exda.ExDAAttention):
        projected = module.qkv_dwconv(module.qkv(x))
    elif isinstance(module, exda.ExDACrossAttention):
        projected = module.kv_dwconv(module.kv(x))
    else:
        projected = module.qkv(x.movedim(1, -1)).movedim(-1, 1)
    key, value = projected[:, -2 * module.dim :].chunk(2, dim=1)
    return key, value
