"""ExDA on Restormer's attention: one map in, one map out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ops
from ..ops.terms import MDTATerms, Projection
from .base import ExDAModule
from .layers import depthwise, pointwise


class ExDAAttention(ExDAModule):
    """ExDA attention on Restormer's MDTA (multi-Dconv head transposed attention).

    A drop-in for Restormer's ``Attention(dim, num_heads, bias)``: the same first arguments, and the original's state
    dict loads with only ``value.*``, ``token.*``, ``alpha`` and ``token_gate`` missing. All arguments are described
    at :class:`ExDAModule`. Source: Restormer (CVPR 2022), section 3.1; ExDA (2026), non-linear value and GST.

    Shape:
        x (B, C, H, W) -> (B, C, H, W), any H, W >= 1, any floating-point dtype; norms, softmax and Gram sums of half
        types are taken in float32.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Example:
        >>> import torch
        >>> attention = ExDAAttention(48, 2, bias=False, tokens=2)
        >>> attention(torch.randn(1, 48, 17, 33)).shape
        torch.Size([1, 48, 17, 33])
    """

    PARTS = ("temperature", "qkv", "qkv_dwconv", "project_out")

    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        return {
            "qkv": pointwise(dim, 3 * dim, bias, factory),
            "qkv_dwconv": depthwise(3 * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def token_macs(self, height: int, width: int) -> int:
        """Rows and columns of the two products grow from c to c + K."""
        return token_product_macs(self, height * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self._check("x", x)
        terms = MDTATerms(
            self.part("temperature"),
            Projection(self.part("qkv"), self.part("qkv_dwconv")),
            self.part("project_out"),
            self._value_terms(),
            self._token_terms(),
        )
        return ops.mdta(x, terms)


def token_product_macs(module: ExDAModule, length: int) -> int:
    """What K more rows of ``length`` elements a head add to ``Q K^T`` and ``A V``."""
    c = module.dim // module.num_heads
    return 2 * module.num_heads * ((c + module.config.tokens) ** 2 - c**2) * length
