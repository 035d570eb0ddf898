"""What the attentions on one map share: all their projections come from one pair of convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ..ops.terms import FusedTerms, Projection
from .base import ExDAModule
from .layers import depthwise as depthwise_layer
from .layers import pointwise


class FusedAttention(ExDAModule):
    """Base of the attentions whose 1x1 convolution C -> f * C gives q, k, v (and whatever else) at once."""

    PARTS = ("temperature", "qkv", "qkv_dwconv", "project_out")
    PROJECTIONS: ClassVar[int]
    """f."""

    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        return {
            "qkv": pointwise(dim, self.PROJECTIONS * dim, bias, factory),
            "qkv_dwconv": depthwise_layer(self.PROJECTIONS * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def terms(self) -> FusedTerms:
        """What the functions of ``ops`` read."""
        return plain_terms(self, self._parts)._replace(value=self._value_terms(), tokens=self._token_terms())


def plain_terms(module: nn.Module, parts: Mapping[str, str]) -> FusedTerms:
    """Those of an attention without primitives, the host's own for one, whose ``parts`` have these attributes."""
    temperature, qkv, depthwise, project = (getattr(module, parts[part]) for part in FusedAttention.PARTS)
    return FusedTerms(temperature, Projection(qkv, depthwise), project, None, None)
