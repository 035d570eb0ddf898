"""The non-linear value of ExDA on (B, C, H, W) maps: ``V' = V + g(V)`` and its ablations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .terms import Branch, ValueTerms


def hidden(v: Tensor, branch: Branch) -> Tensor:
    """``t = GELU(DWConv3x3(Conv1x1(v)))``, (B, C, H, W) -> (B, C, H, W): g without its last convolution."""
    u = F.conv2d(v, branch.in_weight, branch.in_bias)
    return F.gelu(F.conv2d(u, branch.depthwise_weight, branch.depthwise_bias, padding=1, groups=u.shape[1]))


def nonlinear_value(v: Tensor, terms: ValueTerms) -> Tensor:
    """``V'`` of the given form, (B, C, H, W) -> (B, C, H, W), as the paper prints it (nothing folded)."""
    if terms.form == "gelu":
        return F.gelu(v)
    if terms.form == "sigmoid":
        return v.sigmoid()
    if terms.branch is None:
        return v
    g = F.conv2d(hidden(v, terms.branch), terms.branch.out_weight, terms.branch.out_bias)
    return v + g if terms.form == "residual" else g
