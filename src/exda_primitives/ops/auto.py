"""The backend ``"auto"``: on a CPU and without gradients, larger maps strip by strip; else the backend ``"torch"``."""

from __future__ import annotations

from torch import Tensor

from . import cpu
from . import torch as concat_free
from .terms import PackedQKVTerms


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    if x.device.type == "cpu" and cpu.takes_attention(x, terms):
        return cpu.attention(x, terms)
    return concat_free.mdta(x, terms)
