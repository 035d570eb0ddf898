"""ExDA on Histoformer's attention, literally: a token is one more channel of q, k and v.

A token is sorted by its own values (stably: upsampled maps have plateaus), cut into boxes and interleaved runs as the
channels are, and its output rows go back through its own order before ``alpha * mean`` joins each branch.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..precision import unit_divisor, widen, without_autocast
from ..sorting import BOXES, INTERLEAVED, sort_half, to_rows, to_sequences, unsort, unsort_half
from ..terms import PackedQKVTerms, TokenTerms, projected
from ..tokens import sorted_tokens
from ..value import nonlinear_value
from .channel import reinjected


def histogram(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    height, width = x.shape[-2:]
    x_sorted, half_order = sort_half(x)
    q1, k1, q2, k2, v = projected(x_sorted, terms.qkv).chunk(5, dim=1)
    before = terms.value is not None and terms.value.position == "before"
    if terms.value is not None and before:
        v = nonlinear_value(v, terms.value)
    dtype = v.dtype
    v, order = v.flatten(2).sort(dim=-1)
    q1, k1, q2, k2 = (m.flatten(2).gather(2, order) for m in (q1, k1, q2, k2))
    g = None
    if terms.tokens is not None:
        values, token_order, scale = sorted_tokens(x, terms.tokens, v)
        g = widen(values) * scale, token_order
    with without_autocast(x):
        out = _branch(q1, k1, v, order, g, BOXES, terms) * _branch(q2, k2, v, order, g, INTERLEAVED, terms)
    out = out.unflatten(2, (height, width)).to(dtype)
    if terms.value is not None and not before:
        out = nonlinear_value(out, terms.value)
    return unsort_half(terms.project(out), half_order)


def _branch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    g: tuple[Tensor, Tensor] | None,
    layout: str,
    terms: PackedQKVTerms,
) -> Tensor:
    heads, length = terms.temperature.shape[-3], v.shape[-1]
    q, k, v = (widen(to_rows(m, heads, layout)) for m in (q, k, v))
    local = q.shape[2]
    if g is not None:
        token_rows = to_rows(g[0], heads, layout)
        q, k, v = (torch.cat([m, token_rows], dim=2) for m in (q, k, v))
    q, k = q / unit_divisor(q), k / unit_divisor(k)
    weights = (q @ k.transpose(-2, -1) * widen(terms.temperature)).exp()
    attention = weights / (1 + weights.sum(-1, keepdim=True))
    if terms.tokens is not None:
        gated = _gated_rows(weights[:, :, :local], local, terms.tokens)
        attention = torch.cat([gated, attention[:, :, local:]], dim=2)
    rows = attention @ v
    out = unsort(to_sequences(rows[:, :, :local], length, layout), order)
    if g is None or terms.tokens is None:
        return out
    returned = unsort(to_sequences(rows[:, :, local:], length, layout), g[1]).unflatten(1, (heads, -1))
    out = rearrange(out, "b (h c) n -> b h c n", h=heads) + reinjected(returned, terms.tokens)
    return out.flatten(1, 2)


def _gated_rows(weights: Tensor, local: int, tokens: TokenTerms) -> Tensor:
    """Local rows of softmax_1 under the gate: lam = 1 is the plain formula, lam = 0 the host's own."""
    gate = widen(tokens.gate)
    total = 1 + weights.sum(-1, keepdim=True)
    mass = weights[..., local:].sum(-1, keepdim=True) / total
    own = weights[..., :local] / (1 + weights[..., :local].sum(-1, keepdim=True))
    return torch.cat([(1 - gate * mass) * own, gate * weights[..., local:] / total], dim=-1)
