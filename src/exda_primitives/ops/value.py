"""The non-linear value of ExDA on (B, C, H, W) maps: ``V' = V + g(V)`` and its ablations."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from .terms import Branch, TensorFn, ValueForm, ValueTerms


def nonlinear_value(v: Tensor, terms: ValueTerms) -> Tensor:
    """``V'``, (B, C, H, W) -> (B, C, H, W), as the paper prints it (nothing folded)."""
    if terms.whole is not None:
        return terms.whole(v)
    return formed(v, terms.form, None if terms.branch is None else partial(_branch, branch=terms.branch))


def formed(v: Tensor, form: ValueForm, g: TensorFn | None) -> Tensor:
    """``V'`` in one of its forms, (B, C, H, W) -> (B, C, H, W); ``g`` is None for the forms without parameters."""
    if form == "gelu":
        return F.gelu(v)
    if form == "sigmoid":
        return v.sigmoid()
    if g is None:
        return v
    return v + g(v) if form == "residual" else g(v)


def hidden(v: Tensor, branch: Branch) -> Tensor:
    """``t = GELU(DWConv3x3(Conv1x1(v)))``, (B, C, H, W) -> (B, C, H, W): g without its last convolution."""
    u = F.conv2d(v, branch.in_weight, branch.in_bias)
    return F.gelu(F.conv2d(u, branch.depthwise_weight, branch.depthwise_bias, padding=1, groups=u.shape[1]))


def _branch(v: Tensor, branch: Branch) -> Tensor:
    return F.conv2d(hidden(v, branch), branch.out_weight, branch.out_bias)
