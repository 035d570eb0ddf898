"""ExDA on Histoformer's attention, by the concatenation: a token is one more channel of q, k and v.

A token is sorted by its own values (stably, since upsampled maps have plateaus) and cut into bins as the channels are,
in boxes or interleaved. Its output rows are put back by its own order before ``alpha * mean`` is added to each branch.
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
    """Histoformer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    height, width = x.shape[-2:]
    x_sorted, half_order = sort_half(x)
    q1, k1, q2, k2, v = projected(x_sorted, terms.qkv).chunk(5, dim=1)
    before = terms.value is not None and terms.value.position == "before"
    if terms.value is not None and before:
        v = nonlinear_value(v, terms.value)
    dtype = v.dtype
    # The values decide on the order of the pixels, (B, C, N), channel by channel; queries and keys follow.
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
    """One branch, its bins in ``layout``, (B, C, N) in the image's order; ``g`` has sorted tokens and their order."""
    heads, length = terms.temperature.shape[-3], v.shape[-1]
    # Bins become rows of the attention: (B, h, c*h, ceil(N/h)).
    q, k, v = (widen(to_rows(m, heads, layout)) for m in (q, k, v))
    local = q.shape[2]
    if g is not None:
        token_rows = to_rows(g[0], heads, layout)
        q, k, v = (torch.cat([m, token_rows], dim=2) for m in (q, k, v))
    q, k = q / unit_divisor(q), k / unit_divisor(k)
    # softmax_1: exp / (1 + sum of exp).
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
    """Local rows of softmax_1 under the gate, from exp(logits): lam = 1 is the plain formula, lam = 0 the host's.

    With p = (sum of token terms) / (1 + sum of all terms): the host's rows times ``1 - lam p``, the tokens' times lam.
    """
    gate = widen(tokens.gate)
    total = 1 + weights.sum(-1, keepdim=True)
    mass = weights[..., local:].sum(-1, keepdim=True) / total
    own = weights[..., :local] / (1 + weights[..., :local].sum(-1, keepdim=True))
    return torch.cat([(1 - gate * mass) * own, gate * weights[..., local:] / total], dim=-1)
