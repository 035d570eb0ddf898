"""ExDA on cross attention: q from one map, k and v from another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ops
from ..ops import triton_or_torch
from ..ops.terms import CrossTerms, Projection, projected
from .base import ExDAModule
from .layers import depthwise, pointwise


class ExDACrossAttention(ExDAModule):
    """ExDA attention on the cross form of MDTA (AdaIR, MoCE-IR): k, V' and the tokens come from the second map.

    All arguments are described at ``ExDAModule``. Source: AdaIR (ICLR 2025), channel cross attention; ExDA (2026).

    Shape:
        x, y (B, C, H, W) -> (B, C, H, W); q from x, k, v and the tokens from y.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but two non-empty floating-point (B, C, H, W) of equal shape.

    Examples:
        >>> import torch
        >>> attention = ExDACrossAttention(48, 4, bias=False)
        >>> x, y = torch.randn(2, 1, 48, 8, 8)
        >>> attention(x, y).shape
        torch.Size([1, 48, 8, 8])
    """

    PARTS = ("temperature", "q", "q_dwconv", "kv", "kv_dwconv", "project_out")

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {
            "q": pointwise(dim, dim, bias, factory),
            "q_dwconv": depthwise(dim, bias, factory),
            "kv": pointwise(dim, 2 * dim, bias, factory),
            "kv_dwconv": depthwise(2 * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps of (B, C, H, W) -> (B, C, H, W)."""
        self.check_input("x", x)
        self.check_input("y", y)
        self.check_equal_shapes(x=x, y=y)
        terms = self.terms()
        self.check_dtypes(y, terms.kv.depthwise, terms.value, terms.tokens)
        return ops.cross(x, y, terms)

    def terms(self) -> CrossTerms:
        """Returns layers and primitives in the form that ``ops.cross`` takes."""
        return CrossTerms(
            self.part("temperature"),
            Projection(self.part("q"), self.part("q_dwconv")),
            Projection(self.part("kv"), self.part("kv_dwconv")),
            self.part("project_out"),
            self.value_terms(),
            self.token_terms(),
        )

    def linear_value(self, x: Tensor, y: Tensor) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        # k, v = chunk(kv, 2): V is the second half.
        return projected(y, self.terms().kv)[:, -self.dim :]

    def kernel_unsupported_reason(self, height: int, width: int) -> str | None:
        """See ``ExDAModule.kernel_unsupported_reason``."""
        x = self.example_map(height, width)
        return triton_or_torch.cross_unsupported_reason(x, x, self.terms())
