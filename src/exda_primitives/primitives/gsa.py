"""ExDA on MDTA without depthwise convolutions, or with separate layers for q, k and v."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.terms import PackedQKVTerms, Projection
from .base import ExDAModule
from .layers import pointwise


class ExDAPointwiseAttention(ExDAModule):
    """ExDA attention on channel attention whose q, k and v come from 1x1 convolutions: one for all, or one each.

    Constructed from scratch, it has the layers of SST's global spectral attention: one convolution ``qkv`` and no
    depthwise one. A host may instead have ``q``, ``k`` and ``v``, and a depthwise convolution after each. All arguments
    are described at ``ExDAModule``. Source: SST (AAAI 2023), global spectral attention; ExDA (2026).

    Shape:
        x (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Examples:
        >>> import torch
        >>> attention = ExDAPointwiseAttention(48, 2)
        >>> attention(torch.randn(1, 48, 17, 33)).shape
        torch.Size([1, 48, 17, 33])
    """

    PARTS = ("temperature", "q", "k", "v", "q_dwconv", "k_dwconv", "v_dwconv", "project_out")
    """One convolution for all three is named as ``q``, as ``k`` and as ``v``."""
    OPTIONAL = frozenset({"q_dwconv", "k_dwconv", "v_dwconv"})
    OFFICIAL = {"q": "qkv", "k": "qkv", "v": "qkv"}  # noqa: RUF012

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {"q": pointwise(dim, 3 * dim, bias, factory), "project_out": pointwise(dim, dim, bias, factory)}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self.check_input("x", x)
        value, tokens = self.value_terms(), self.token_terms()
        self.check_dtypes(x, self.part("v"), value, tokens)
        # The depthwise convolutions, if any, are inside ``_packed``.
        projection = Projection(self._packed, _as_it_is)
        return ops.mdta(
            x, PackedQKVTerms(self.part("temperature"), projection, self.part("project_out"), value, tokens)
        )

    def linear_value(self, x: Tensor) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        return self._packed(x)[:, -self.dim :]

    def _packed(self, x: Tensor) -> Tensor:
        """Returns q, k and v, stacked on the channel axis: (B, C, H, W) -> (B, 3C, H, W)."""
        if self.host_parts["q"] == self.host_parts["k"]:
            # One convolution C -> 3C returns all three.
            packed: Tensor = self.part("q")(x)
            return packed
        return torch.cat([self._projected(x, name) for name in ("q", "k", "v")], dim=1)

    def _projected(self, x: Tensor, name: str) -> Tensor:
        out: Tensor = self.part(name)(x)
        depthwise = self.optional_part(f"{name}_dwconv")
        return out if depthwise is None else depthwise(out)


def _as_it_is(x: Tensor) -> Tensor:
    return x
