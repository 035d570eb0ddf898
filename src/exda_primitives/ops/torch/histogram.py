"""ExDA on Histoformer's attention without the concatenation.

The local part runs the host's operations in the host's order, so that with zero gates, which add exact zeros, the
result is the host's to the last bit: its sorts would turn any rounding into another image.
"""

from __future__ import annotations

from torch import Tensor

from ..precision import unit_divisor, widen, without_autocast
from ..sorting import BOXES, INTERLEAVED, sort_half, to_rows, to_sequences, unsort, unsort_half
from ..terms import PackedQKVTerms
from ..tokens import SortedTokens, sorted_tokens
from .projection import projected, unfolded_value


def histogram(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Histoformer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    size = x.shape[-2:]
    x_sorted, half_order = sort_half(x)
    q1, k1, q2, k2, v = projected(x_sorted, terms.qkv).chunk(5, dim=1)
    before = terms.value is not None and terms.value.position == "before"
    if terms.value is not None and before:
        v = unfolded_value(v, terms.value)
    dtype = v.dtype
    # The values decide on the order of the pixels, (B, C, N), channel by channel; queries and keys follow.
    v, order = v.flatten(2).sort(dim=-1)
    q1, k1, q2, k2 = (m.flatten(2).gather(2, order) for m in (q1, k1, q2, k2))
    tokens = None if terms.tokens is None else sorted_tokens(x, terms.tokens, v)
    with without_autocast(x):
        out = _branch(q1, k1, v, order, tokens, BOXES, terms) * _branch(q2, k2, v, order, tokens, INTERLEAVED, terms)
    out = out.unflatten(2, size).to(dtype)
    if terms.value is not None and not before:
        out = unfolded_value(out, terms.value)
    return unsort_half(terms.project(out), half_order)


def _branch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    tokens: SortedTokens | None,
    layout: str,
    terms: PackedQKVTerms,
) -> Tensor:
    """One branch, its bins in ``layout``, (B, C, N) in the image's order."""
    heads, length = terms.temperature.shape[-3], v.shape[-1]
    # Bins become rows of the attention: (B, h, c*h, ceil(N/h)).
    temperature = widen(terms.temperature)
    q, k, v = (widen(to_rows(m, heads, layout)) for m in (q, k, v))
    q, k = q / unit_divisor(q), k / unit_divisor(k)
    # The host's softmax_1 of the local logits: exp / (sum of exp + 1).
    weights = (q @ k.transpose(-2, -1) * temperature).exp()
    sums = weights.sum(-1, keepdim=True)
    attention = weights / (sums + 1)
    if tokens is None or terms.tokens is None:
        return unsort(to_sequences(attention @ v, length, layout), order)
    g = widen(to_rows(tokens.values, heads, layout))
    g_unit = g / unit_divisor(g)
    token_weights = (q @ g_unit.transpose(-2, -1) * temperature).exp()
    # p = (sum of token terms) / (1 + sum of all terms); local rows times 1 - lam p, token terms times lam / total.
    token_sums = token_weights.sum(-1, keepdim=True)
    total = 1 + sums + token_sums
    gate = widen(terms.tokens.gate)
    rows = (attention * (1 - gate * token_sums / total)) @ v
    rows = rows + (gate * tokens.scale * token_weights / total) @ g
    out = unsort(to_sequences(rows, length, layout), order)

    # The tokens' own rows, without a gate; they return by the tokens' own order.
    to_channels = (g_unit @ k.transpose(-2, -1) * temperature).exp()
    to_tokens = (g_unit @ g_unit.transpose(-2, -1) * temperature).exp()
    own_total = 1 + to_channels.sum(-1, keepdim=True) + to_tokens.sum(-1, keepdim=True)
    own = (to_channels / own_total) @ v + (tokens.scale * to_tokens / own_total) @ g
    returned = unsort(to_sequences(own, length, layout), tokens.order).unflatten(1, (heads, -1))
    if terms.tokens.reinject == "mean":
        returned = returned.mean(2, keepdim=True)
    return (out.unflatten(1, (heads, -1)) + widen(terms.tokens.alpha) * returned).flatten(1, 2)
