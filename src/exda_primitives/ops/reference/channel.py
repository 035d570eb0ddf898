"""ExDA on Restormer's channel attention (MDTA), its cross form and its form on tokens (XCA), as the paper prints it.

``Q* = [q; G]``, ``K* = [k; G]``, ``V* = [V'; G]`` on the channel axis, ``A* = softmax(temperature * Q* K*^T)`` with
rows of Q* and K* of L2 norm 1 over the pixels, ``O = A* V*``, ``out = Conv1x1(O[:c] + alpha * mean_k O[c:])``.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..layout import to_map, to_tokens
from ..precision import unit_divisor, widen, without_autocast
from ..terms import ChannelTerms, CrossTerms, LinearTerms, PackedQKVTerms, TokenTerms, projected
from ..value import nonlinear_value
from .tokens import token_maps


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    q, k, v = projected(x, terms.qkv).chunk(3, dim=1)
    return terms.project(_attend(q, k, v, x, terms))


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Cross attention, two maps (B, C, H, W) -> (B, C, H, W): q from ``x``; k, v and the tokens from ``y``."""
    q = projected(x, terms.q)
    k, v = projected(y, terms.kv).chunk(2, dim=1)
    return terms.project(_attend(q, k, v, y, terms))


def xca(x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
    """Cross-covariance attention, (B, N, C) -> (B, N, C), of the N = H*W pixels of a map of ``size`` (H, W)."""
    q, k, v = to_map(terms.qkv(x), size).chunk(3, dim=1)
    return terms.project(to_tokens(_attend(q, k, v, to_map(x, size), terms)))


def _attend(q: Tensor, k: Tensor, v: Tensor, x: Tensor, terms: ChannelTerms) -> Tensor:
    """Returns the heads' outputs as a map (B, C, H, W), before the projection; ``x`` is what tokens are made of."""
    heads = terms.temperature.shape[-3]
    height, width = v.shape[-2:]
    before = terms.value is not None and terms.value.position == "before"
    if terms.value is not None and before:
        v = nonlinear_value(v, terms.value)
    dtype = v.dtype
    q, k, v = (rearrange(widen(m), "b (h c) y x -> b h c (y x)", h=heads) for m in (q, k, v))
    c = q.shape[2]
    tokens = terms.tokens
    if tokens is not None:
        g = widen(rearrange(token_maps(x, heads, tokens), "b h k y x -> b h k (y x)"))
        # Q* = [q; G], K* = [k; G], V* = [V'; G], (B, h, c+K, N)
        q, k, v = (torch.cat([m, g], dim=2) for m in (q, k, v))
    with without_autocast(x):
        q, k = q / unit_divisor(q), k / unit_divisor(k)
        logits = widen(terms.temperature) * (q @ k.transpose(-2, -1))
        attention = logits.softmax(-1)
        if tokens is not None:
            # The gate acts on the local rows alone.
            attention = torch.cat([gated_rows(logits[:, :, :c], c, tokens), attention[:, :, c:]], dim=2)
        rows = attention @ v
        out = rows if tokens is None else rows[:, :, :c] + reinjected(rows[:, :, c:], tokens)
    out = rearrange(out, "b h c (y x) -> b (h c) y x", y=height, x=width).to(dtype)
    if terms.value is not None and not before:
        out = nonlinear_value(out, terms.value)
    return out


def gated_rows(logits: Tensor, c: int, tokens: TokenTerms) -> Tensor:
    """Local rows of the attention from their logits, (B, h, c, c+K): lam = 1 is the plain softmax, lam = 0 the host's.

    With p the row's softmax mass on the tokens: ``A_local = (1 - lam p) softmax(local logits)``, ``A_token = lam
    A*[:c, c:]``.
    """
    gate = widen(tokens.gate)
    mass = torch.sigmoid(logits[..., c:].logsumexp(-1, keepdim=True) - logits[..., :c].logsumexp(-1, keepdim=True))
    local = (1 - gate * mass) * logits[..., :c].softmax(-1)
    return torch.cat([local, gate * logits.softmax(-1)[..., c:]], dim=-1)


def reinjected(rows: Tensor, tokens: TokenTerms) -> Tensor:
    """``alpha * mean_k O[c:]``, (B, h, K, N) -> (B, h, 1, N); channelwise, with K = c, ``alpha * O[c:]``."""
    if tokens.reinject == "mean":
        rows = rows.mean(2, keepdim=True)
    return widen(tokens.alpha) * rows
