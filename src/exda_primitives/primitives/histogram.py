"""ExDA on Histoformer's attention: sorted channels in boxes and in interleaved runs; the product of both branches."""

from __future__ import annotations

from torch import Tensor

from .. import ops
from ..ops.sorting import sort_half
from ..ops.terms import projected
from .packed_qkv import PackedQKVAttention


class ExDAHistogramAttention(PackedQKVAttention):
    """ExDA attention on Histoformer's dynamic-range histogram self-attention.

    V' is computed before the sort of the value; a token is one more channel of q, k and v, sorted by its own values.
    With identity init, outputs equal the host's to the last bit in float32 and float64. Unlike the host, which writes
    its sorted half of the channels into its input, it leaves the input unchanged. All arguments are described at
    ``ExDAModule``; ``value_position="after"`` acts on the product of the two branches. Source: Histoformer (ECCV 2024),
    section 3.2; ExDA (2026).

    Shape:
        x (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Examples:
        >>> import torch
        >>> attention = ExDAHistogramAttention(36, 2, bias=False)
        >>> attention(torch.randn(1, 36, 7, 5)).shape
        torch.Size([1, 36, 7, 5])
    """

    # q1, k1, q2, k2, v: both branches share v.
    PROJECTIONS = 5

    def token_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that K more rows per head add to ``Q K^T`` and ``A V`` of both branches."""
        # A branch cuts each row of N pixels into h runs: h times as many rows, so h^2 as many products, of length N/h.
        run = -(-height * width // self.num_heads)
        return 2 * self.num_heads**2 * super().token_macs(run, 1)

    def linear_value(self, x: Tensor) -> Tensor:
        """See ``ExDAModule.linear_value``; V of the map whose first half of channels is sorted, as in the host."""
        return projected(sort_half(x)[0], self.terms().qkv)[:, -self.dim :]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self.check_input("x", x)
        terms = self.terms()
        self.check_dtypes(x, terms.qkv.depthwise, terms.value, terms.tokens)
        return ops.histogram(x, terms)
