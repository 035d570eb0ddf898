"""What computes where no backend is asked for: on a CPU, without gradients, strips of larger maps."""

from __future__ import annotations

from torch import Tensor

from . import cpu
from . import torch as concat_free
from .terms import PackedQKVTerms


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    if x.device.type == "cpu" and cpu.takes_attention(x, terms):
        return cpu.attention(x, terms)
    return concat_free.mdta(x, terms)
