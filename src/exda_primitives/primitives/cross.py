"""ExDA on cross attention: q from one map, k and v from another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ops
from ..errors import InputError
from ..ops import triton_or_torch
from ..ops.terms import CrossTerms, Projection
from .base import ExDAModule
from .layers import depthwise, pointwise
from .tracing import as_one_call, is_symbolic


class ExDACrossAttention(ExDAModule):
    """ExDA attention on the cross form of MDTA (AdaIR, MoCE-IR): tokens and V' come from the second map.

    All arguments are described at ``ExDAModule``. Source: AdaIR (ICLR 2025), channel cross attention; ExDA (2026).

    Shape:
        x, y (B, C, H, W) -> (B, C, H, W); q from x, k, v and the tokens from y.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but two non-empty floating-point (B, C, H, W) of equal shape.

    Example:
        >>> import torch
        >>> attention = ExDACrossAttention(48, 4, bias=False)
        >>> x, y = torch.randn(2, 1, 48, 8, 8)
        >>> attention(x, y).shape
        torch.Size([1, 48, 8, 8])
    """

    PARTS = ("temperature", "q", "q_dwconv", "kv", "kv_dwconv", "project_out")

    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        return {
            "q": pointwise(dim, dim, bias, factory),
            "q_dwconv": depthwise(dim, bias, factory),
            "kv": pointwise(dim, 2 * dim, bias, factory),
            "kv_dwconv": depthwise(2 * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps of (B, C, H, W) -> (B, C, H, W)."""
        if is_symbolic(x):
            return as_one_call(self, x, y)
        self._check("x", x)
        self._check("y", y)
        if x.shape != y.shape:
            raise InputError(
                f"{self._owner()}: expected x and y of equal shape, got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        terms = self.terms()
        self._check_dtypes(y, terms.kv.depthwise, terms.value, terms.tokens)
        return ops.cross(x, y, terms)

    def terms(self) -> CrossTerms:
        """What the functions of ``ops`` read."""
        return CrossTerms(
            self.part("temperature"),
            Projection(self.part("q"), self.part("q_dwconv")),
            Projection(self.part("kv"), self.part("kv_dwconv")),
            self.part("project_out"),
            self._value_terms(),
            self._token_terms(),
        )

    def kernel_unsupported_reason(self, height: int, width: int) -> str | None:
        """See ``ExDAModule.kernel_unsupported_reason``."""
        x = self._meta_map(height, width)
        return triton_or_torch.cross_unsupported_reason(x, x, self.terms())
