"""What the attentions on one map share: all their projections come from one pair of convolutions."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from ..ops.terms import FusedTerms, Projection
from .base import ExDAModule
from .layers import depthwise, pointwise


class FusedAttention(ExDAModule):
    """Base of the attentions whose 1x1 convolution C -> f * C gives q, k, v (and whatever else) at once."""

    PARTS = ("temperature", "qkv", "qkv_dwconv", "project_out")
    PROJECTIONS: ClassVar[int]
    """f."""

    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        return {
            "qkv": pointwise(dim, self.PROJECTIONS * dim, bias, factory),
            "qkv_dwconv": depthwise(self.PROJECTIONS * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def _terms(self) -> FusedTerms:
        return FusedTerms(
            self.part("temperature"),
            Projection(self.part("qkv"), self.part("qkv_dwconv")),
            self.part("project_out"),
            self._value_terms(),
            self._token_terms(),
        )
