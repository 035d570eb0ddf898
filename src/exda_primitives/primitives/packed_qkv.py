"""What the attentions on one map share: all their projections come from one pair of convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ..ops.terms import PackedQKVTerms, Projection, TokenTerms, ValueTerms
from .base import ExDAModule
from .layers import depthwise, pointwise


class PackedQKVAttention(ExDAModule):
    """Base of the attentions whose 1x1 convolution C -> f * C gives q, k, v (and whatever else) at once."""

    PARTS: ClassVar[tuple[str, ...]] = ("temperature", "qkv", "qkv_dwconv", "project_out")
    PROJECTIONS: ClassVar[int]
    """f."""

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {
            "qkv": pointwise(dim, self.PROJECTIONS * dim, bias, factory),
            "qkv_dwconv": depthwise(self.PROJECTIONS * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def terms(self) -> PackedQKVTerms:
        """What the functions of ``ops`` read."""
        return packed_terms(self, self.host_parts, self.value_terms(), self.token_terms())


def packed_terms(
    module: nn.Module, parts: Mapping[str, str], value: ValueTerms | None = None, tokens: TokenTerms | None = None
) -> PackedQKVTerms:
    """Those of an attention whose ``parts`` have these attributes, a host's own for one."""
    temperature, qkv, qkv_dwconv, project = [getattr(module, parts[part]) for part in PackedQKVAttention.PARTS]
    return PackedQKVTerms(temperature, Projection(qkv, qkv_dwconv), project, value, tokens)
