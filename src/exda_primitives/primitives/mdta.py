"""ExDA on Restormer's attention: one map in, one map out."""

from __future__ import annotations

from torch import Tensor

from .. import ops
from ..ops import triton_or_torch
from ..ops.terms import projected
from .packed_qkv import PackedQKVAttention


class ExDAAttention(PackedQKVAttention):
    """ExDA attention on Restormer's MDTA (multi-Dconv head transposed attention).

    A drop-in for Restormer's ``Attention(dim, num_heads, bias)``: the same first arguments, and the original's state
    dict loads with only ``value.*``, ``token.*``, ``alpha`` and ``token_gate`` missing. All arguments are described
    at ``ExDAModule``. Source: Restormer (CVPR 2022), section 3.1; ExDA (2026), non-linear value and GST.

    Shape:
        x (B, C, H, W) -> (B, C, H, W), any H, W >= 1, any floating-point dtype; norms, softmax and Gram sums of half
        types are taken in float32.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Examples:
        >>> import torch
        >>> attention = ExDAAttention(48, 2, bias=False, tokens=2)
        >>> attention(torch.randn(1, 48, 17, 33)).shape
        torch.Size([1, 48, 17, 33])
    """

    PROJECTIONS = 3

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # Per head, with Q* = [q; G], K* = [k; G] (rows L2-normalised over the pixels) and V* = [V'; G]:
        # A* = softmax(temperature * Q* K*^T), O = A* V*, out = Conv1x1(O[:c] + alpha * mean_k O[c:]).
        # The gate lam scales the mass p that local rows (the first c of A*) give to tokens: these rows are
        # [(1 - lam * p) * softmax(local logits), lam * A*[:c, c:]]. ``ops/reference/channel.py`` is this, literally.
        self.check_input("x", x)
        terms = self.terms()
        self.check_dtypes(x, terms.qkv.depthwise, terms.value, terms.tokens)
        return ops.mdta(x, terms)

    def linear_value(self, x: Tensor) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        # q, k, v = chunk(qkv, 3): V is the last third.
        return projected(x, self.terms().qkv)[:, -self.dim :]

    def kernel_unsupported_reason(self, height: int, width: int) -> str | None:
        """See ``ExDAModule.kernel_unsupported_reason``."""
        return triton_or_torch.mdta_unsupported_reason(self.example_map(height, width), self.terms())
