"""ExDA on Histoformer's attention: channels sorted, cut into boxes and interleaved runs, two branches multiplied."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ops
from ..ops.terms import HistogramTerms, Projection
from .base import ExDAModule
from .layers import depthwise, pointwise
from .mdta import token_product_macs


class ExDAHistogramAttention(ExDAModule):
    """ExDA attention on Histoformer's dynamic-range histogram self-attention.

    V' is taken before the value's sort; a token is one more channel of q, k and v, sorted by its own values. With
    identity init it is the host to the last bit in float32 and float64. Unlike the host it leaves its input alone (the
    host writes its sorted half into it). All arguments are described at :class:`ExDAModule`; ``value_position="after"``
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

    PARTS = ("temperature", "qkv", "qkv_dwconv", "project_out")

    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        return {
            "qkv": pointwise(dim, 5 * dim, bias, factory),
            "qkv_dwconv": depthwise(5 * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def token_macs(self, height: int, width: int) -> int:
        """Both branches; every row is cut into h runs, so that a product has h * h times as many, h times shorter."""
        padded = -(-height * width // self.num_heads) * self.num_heads
        return 2 * token_product_macs(self, padded) * self.num_heads

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self._check("x", x)
        terms = HistogramTerms(
            self.part("temperature"),
            Projection(self.part("qkv"), self.part("qkv_dwconv")),
            self.part("project_out"),
            self._value_terms(),
            self._token_terms(),
        )
        return ops.histogram(x, terms)
