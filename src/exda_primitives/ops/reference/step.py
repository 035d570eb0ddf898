"""The other parts of a transformer block, normalisation and gated feed-forward, as printed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..terms import GatedTerms, NormTerms


def norm(x: Tensor, terms: NormTerms) -> Tensor:
    """Layer normalisation over the channels of each pixel, (B, C, H, W) -> (B, C, H, W); see ``NormTerms``."""
    centred = x - x.mean(1, keepdim=True)
    out = (centred if terms.subtract_mean else x) / torch.sqrt(centred.square().mean(1, keepdim=True) + terms.eps)
    if terms.weight is not None:
        out = out * terms.weight[:, None, None]
    return out if terms.bias is None else out + terms.bias[:, None, None]


def gated(x: Tensor, terms: GatedTerms) -> Tensor:
    """Restormer's gated feed-forward (GDFN, eq. 3), (B, C, H, W) -> (B, C, H, W)."""
    gate, value = terms.depthwise(terms.project_in(x)).chunk(2, dim=1)
    return terms.project_out(F.gelu(gate) * value)
