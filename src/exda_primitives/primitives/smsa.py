"""ExDA on spectral-wise multi-head self-attention: maps with channels last, separate layers for q, k and v."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.terms import LinearTerms
from .base import ExDAModule
from .layers import depthwise


class ExDASpectralAttention(ExDAModule):
    """ExDA attention on S-MSA (MST, MST++) and, with a second map, on IG-MSA (Retinexformer), which scales V by it.

    The rows of S-MSA's attention belong to k: ``softmax(temperature * k q^T)``. A position embedding of the linear V is
    added to the output. All arguments are described at ``ExDAModule``; ``bias`` applies to ``to_q``, ``to_k`` and
    ``to_v``. Sources: MST++ (CVPR Workshops 2022), section 3.3; Retinexformer (ICCV 2023), section 3.3; ExDA (2026).

    Shape:
        x (B, H, W, C) -> (B, H, W, C), channels last, any H, W >= 1; ``illu_fea_trans``, if given, as x.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but non-empty floating-point (B, H, W, C), and for two of different shapes.

    Examples:
        >>> import torch
        >>> attention = ExDASpectralAttention(31, 1)
        >>> attention(torch.randn(1, 8, 6, 31)).shape
        torch.Size([1, 8, 6, 31])
    """

    PARTS = ("temperature", "to_q", "to_k", "to_v", "pos_emb", "proj")
    OFFICIAL = {"temperature": "rescale"}  # noqa: RUF012

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {
            **{name: nn.Linear(dim, dim, bias=bias, **factory) for name in ("to_q", "to_k", "to_v")},
            "proj": nn.Linear(dim, dim, **factory),
            "pos_emb": nn.Sequential(depthwise(dim, False, factory), nn.GELU(), depthwise(dim, False, factory)),
        }

    def forward(self, x: Tensor, illu_fea_trans: Tensor | None = None) -> Tensor:
        """(B, H, W, C), once or twice -> (B, H, W, C); the second argument is named as in Retinexformer."""
        self.check_input("x", x, "BHWC")
        if illu_fea_trans is not None:
            self.check_input("illu_fea_trans", illu_fea_trans, "BHWC")
            self.check_equal_shapes(x=x, illu_fea_trans=illu_fea_trans)
        size, to_v = (x.shape[1], x.shape[2]), self.part("to_v")
        # Pixels as tokens (B, N, C): the attention is then XCA's.
        tokens = x.flatten(1, 2)
        linear = to_v(tokens)
        # IG-MSA: V times the illumination features; the position embedding below gets V without them.
        v = linear if illu_fea_trans is None else linear * illu_fea_trans.flatten(1, 2)

        def packed(tokens: Tensor) -> Tensor:
            # k takes q's place: ``ops.xca`` computes softmax(temperature * q k^T), S-MSA's rows belong to k.
            return torch.cat([self.part("to_k")(tokens), self.part("to_q")(tokens), v], dim=-1)

        terms = LinearTerms(self.part("temperature"), packed, self.part("proj"), self.value_terms(), self.token_terms())
        self.check_dtypes(x, to_v, terms.value, terms.tokens)
        out = ops.xca(tokens, size, terms).unflatten(1, size)
        position: Tensor = self.part("pos_emb")(linear.unflatten(1, size).movedim(-1, 1))
        return out + position.movedim(1, -1)

    def linear_value(self, x: Tensor, illu_fea_trans: Tensor | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        v: Tensor = self.part("to_v")(x)
        return (v if illu_fea_trans is None else v * illu_fea_trans).movedim(-1, 1)

    def has_bias(self) -> bool:
        """See ``ExDAModule.has_bias``."""
        return self.part("to_v").bias is not None
