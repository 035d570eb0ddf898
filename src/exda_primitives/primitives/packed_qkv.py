"""Base of the attentions on one map that get all projections from one pair of convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ..ops.terms import PackedQKVTerms, Projection, TokenTerms, ValueTerms
from .base import ExDAModule
from .layers import depthwise, pointwise


class PackedQKVAttention(ExDAModule):
    """Base of the attentions whose projections come at once: ``q, k, v, ... = chunk(DWConv3x3(Conv1x1(x)), f)``."""

    PARTS: ClassVar[tuple[str, ...]] = ("temperature", "qkv", "qkv_dwconv", "project_out")
    PROJECTIONS: ClassVar[int]
    """f: how many maps of C channels the convolutions C -> f * C return."""

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {
            "qkv": pointwise(dim, self.PROJECTIONS * dim, bias, factory),
            "qkv_dwconv": depthwise(self.PROJECTIONS * dim, bias, factory),
            "project_out": pointwise(dim, dim, bias, factory),
        }

    def terms(self) -> PackedQKVTerms:
        """Returns layers and primitives in the form that ``ops`` takes."""
        return packed_terms(self, self.host_parts, self.value_terms(), self.token_terms())


def packed_terms(
    module: nn.Module, parts: Mapping[str, str], value: ValueTerms | None = None, tokens: TokenTerms | None = None
) -> PackedQKVTerms:
    """Returns the terms of an attention ``module``, ExDA's or a host's own.

    Args:
        module: the attention.
        parts: name in ``PackedQKVAttention.PARTS`` -> attribute of ``module``.
        value: its non-linear value; None if its value is linear.
        tokens: its tokens; None if it has none.
    """
    temperature, qkv, qkv_dwconv, project = [getattr(module, parts[part]) for part in PackedQKVAttention.PARTS]
    return PackedQKVTerms(temperature, Projection(qkv, qkv_dwconv), project, value, tokens)
