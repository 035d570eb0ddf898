"""ExDA on Histoformer's attention: channels sorted, cut into boxes and interleaved runs, two branches multiplied."""

from __future__ import annotations

from torch import Tensor

from .. import ops
from ..ops.sorting import sort_half
from ..ops.terms import projected
from .packed_qkv import PackedQKVAttention


class ExDAHistogramAttention(PackedQKVAttention):
    """ExDA attention on Histoformer's dynamic-range histogram self-attention.

    V' is taken before the value's sort; a token is one more channel of q, k and v, sorted by its own values. With
    identity init it is the host to the last bit in float32 and float64. Unlike the host it leaves its input alone (the
    host writes its sorted half into it). All arguments are described at ``ExDAModule``; ``value_position="after"``
    acts on the product of the two branches. Source: Histoformer (ECCV 2024), section 3.2; ExDA (2026).

    Shape:
        x (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Example:
        >>> import torch
        >>> attention = ExDAHistogramAttention(36, 2, bias=False)
        >>> attention(torch.randn(1, 36, 7, 5)).shape
        torch.Size([1, 36, 7, 5])
    """

    PROJECTIONS = 5

    def token_macs(self, height: int, width: int) -> int:
        """Of both branches, each row cut into h runs: h * h times as many products of rows 1/h as long."""
        run = -(-height * width // self.num_heads)
        return 2 * self.num_heads**2 * super().token_macs(run, 1)

    def linear_value(self, x: Tensor) -> Tensor:
        """See ``ExDAModule.linear_value``; of the map whose first half of channels is sorted, as the host has it."""
        return projected(sort_half(x)[0], self.terms().qkv)[:, -self.dim :]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self.check_input("x", x)
        terms = self.terms()
        self.check_dtypes(x, terms.qkv.depthwise, terms.value, terms.tokens)
        return ops.histogram(x, terms)
