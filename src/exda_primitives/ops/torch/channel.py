"""ExDA on channel attention without a (c+K)-channel map and, where the projection folds, without V'.

The blocks ``q k^T``, ``q G^T``, ``G k^T``, ``G G^T`` and the norms give the small matrix
``E = A_local + alpha * mean(A_global)``, (c x (c+K)) per head. With ``t = GELU(DWConv(Conv1x1(V)))`` and W2, the last
convolution of g: ``out = M V + (M W2) t + M_G G + bias``, where ``[M, M_G] = W_out blockdiag(E)``. For a map of few
pixels the folding costs more than it saves: ``E [V + W2 t; G]`` is computed head by head, then W_out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..layout import to_map, to_tokens
from ..precision import divisor, widen, without_autocast
from ..terms import ChannelTerms, CrossTerms, LinearTerms, PackedQKVTerms, TokenTerms, ValueTerms
from ..tokens import in_dtype_of, pool, projection, softmax_over_space, unit_mean, upsample
from .fold import foldable_weight, through_blocks
from .gram import Gram, gram
from .products import product_of_heads
from .projection import before_gelu, depthwise, projected, shared, unfolded_value
from .recompute import makes_graph
from .sums import Sum


class Mixing(NamedTuple):
    """E of every head in the accumulation dtype: columns for channels, (B, h, c, c), and for tokens, (B, h, c, K)."""

    local: Tensor
    token: Tensor | None


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    x = shared(x, *terms.qkv)
    q, k, v = projected(x, terms.qkv).chunk(3, dim=1)
    out, folded = _attend(q, k, v, x, terms)
    return out if folded else terms.project(out)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Cross attention, two maps (B, C, H, W) -> (B, C, H, W): q from ``x``; k, v and the tokens from ``y``."""
    y = shared(y, *terms.kv)
    q = projected(x, terms.q)
    k, v = projected(y, terms.kv).chunk(2, dim=1)
    out, folded = _attend(q, k, v, y, terms)
    return out if folded else terms.project(out)


def xca(x: Tensor, size: tuple[int, int], terms: LinearTerms) -> Tensor:
    """Cross-covariance attention, (B, N, C) -> (B, N, C), of the N = H*W pixels of a map of ``size`` (H, W)."""
    x = shared(x, terms.qkv)
    q, k, v = to_map(terms.qkv(x), size).chunk(3, dim=1)
    out, folded = _attend(q, k, v, to_map(x, size), terms)
    out = to_tokens(out)
    return out if folded else terms.project(out)


def _attend(q: Tensor, k: Tensor, v: Tensor, x: Tensor, terms: ChannelTerms) -> tuple[Tensor, bool]:
    """Returns a map (B, C, H, W), and whether the projection is part of it already, folded into the small matrices.

    ``x`` is what tokens are made of.
    """
    value = terms.value
    if value is not None and value.whole is not None and value.position == "before":
        v, value = value.whole(v), None
    g, scale = (None, 1.0) if terms.tokens is None else _token_maps(x, v, terms.tokens)
    with without_autocast(x):
        mixing = _mixing(q, k, g, scale, terms)
    weight, bias = foldable_weight(terms)
    left = None if weight is None or not _pays(v, value, mixing) else widen(weight)
    if value is None or value.position == "before":
        if left is not None:
            return _before(v, g, left, bias, mixing, value), True
        return _by_heads(v if value is None else unfolded_value(v, value), g, mixing), False
    if left is not None:
        return _after(v, g, left, bias, mixing, value), True
    return unfolded_value(_by_heads(v, g, mixing), value), False


def _pays(v: Tensor, value: ValueTerms | None, mixing: Mixing) -> bool:
    """Whether folding W_out saves at least as many multiplications as it costs; both are compared divided by C.

    It costs C C c for each product of W_out, or W1, with E, and C C C for that with W2. On N pixels it saves C c N for
    ``E V``, which is taken head by head otherwise, and C C N where g(V) alone goes through W_out.
    """
    branch = None if value is None else value.branch
    after = value is not None and value.position == "after"
    if after and branch is None:
        # A non-linearity between E and W_out: nothing folds.
        return False
    if makes_graph():
        # One graph for all sizes: the choice may not depend on the number of pixels.
        return True
    channels, pixels, c = v.shape[1], v.shape[2] * v.shape[3], mixing.local.shape[-1]
    alone = value is not None and value.form == "replace"
    costs = channels * c * (1 + (after and not alone)) + (0 if branch is None else channels * channels)
    return pixels * (c + channels * alone) >= costs


def _by_heads(v: Tensor, g: Tensor | None, mixing: Mixing) -> Tensor:
    """``E [V; G]`` head by head, (B, C, H, W)."""
    size, heads = v.shape[2:], mixing.local.shape[1]
    out = product_of_heads(mixing.local.to(v.dtype), _rows(v, heads))
    if g is not None and mixing.token is not None:
        out = out + product_of_heads(mixing.token.to(v.dtype), _rows(g.to(v.dtype), heads))
    return out.flatten(1, 2).unflatten(2, size)


def _token_maps(x: Tensor, v: Tensor, tokens: TokenTerms) -> tuple[Tensor, float | Tensor]:
    """Returns G (B, h*K, H, W) in the dtype of ``v``, and the factor that it is multiplied by as a value."""
    if tokens.whole is not None:
        return in_dtype_of(v, tokens.whole(x).flatten(1, 2))
    # Phi and the pooling commute: logits of h*K channels are pooled, not maps of C.
    maps = softmax_over_space(pool(projection(tokens)(x), tokens.stride))
    maps, scale = unit_mean(maps, tokens.scale)
    return upsample(maps, v.shape[-2:]).to(v.dtype), scale


def _before(
    v: Tensor, g: Tensor | None, left: Tensor, bias: Tensor | None, mixing: Mixing, value: ValueTerms | None
) -> Tensor:
    """``M V + (M W2) t + M_G G + bias``, the value before the aggregation, (B, C, H, W); ``left`` is W_out."""
    # M = W_out blockdiag(E), (B, C, C)
    matrix = through_blocks(left, mixing.local)
    total = Sum()
    if value is None or value.form == "residual":
        total.add(matrix, v)
    if value is not None and value.branch is None:
        total.add(matrix, v, value.form if value.form in ("gelu", "sigmoid") else None)
    elif value is not None and value.branch is not None:
        z = before_gelu(v, value.branch)
        with without_autocast(v):
            total.add(matrix @ widen(value.branch.out_weight.flatten(1)), z, "gelu")
            total.shift(matrix @ widen(value.branch.out_bias))
    if g is not None and mixing.token is not None:
        total.add(through_blocks(left, mixing.token), g)
    return total.evaluate(bias)


def _after(v: Tensor, g: Tensor | None, left: Tensor, bias: Tensor | None, mixing: Mixing, value: ValueTerms) -> Tensor:
    """The value after the aggregation, (B, C, H, W); ``left`` is W_out.

    With ``O = E [V; G]``: ``out = W_out O + (W_out W2) GELU(DW(W1 O)) + bias``, the first term for the residual form
    alone; W1 and W_out are folded with E.
    """
    assert value.branch is not None
    branch = value.branch
    # u = W1 O, z = DW(u)
    u = _aggregate(v, g, widen(branch.in_weight.flatten(1)), mixing).evaluate(branch.in_bias)
    total = _aggregate(v, g, left, mixing) if value.form == "residual" else Sum()
    z = depthwise(u, branch.depthwise_weight, branch.depthwise_bias)
    with without_autocast(v):
        total.add((left @ widen(branch.out_weight.flatten(1))).expand(v.shape[0], -1, -1), z, "gelu")
        total.shift((left @ widen(branch.out_bias)).expand(v.shape[0], -1))
    return total.evaluate(bias)


def _aggregate(v: Tensor, g: Tensor | None, left: Tensor, mixing: Mixing) -> Sum:
    """``left E [V; G]`` as a sum to be evaluated."""
    total = Sum()
    total.add(through_blocks(left, mixing.local), v)
    if g is not None and mixing.token is not None:
        total.add(through_blocks(left, mixing.token), g)
    return total


def _mixing(q: Tensor, k: Tensor, g: Tensor | None, scale: float | Tensor, terms: ChannelTerms) -> Mixing:
    """E of maps q, k and tokens g; ``scale`` is the factor that g is multiplied by as a value."""
    heads = terms.temperature.shape[-3]
    return mixing_of(gram(_rows(q, heads), _rows(k, heads), None if g is None else _rows(g, heads)), scale, terms)


def mixing_of(found: Gram, scale: float | Tensor, terms: ChannelTerms) -> Mixing:
    """E from the Gram blocks and norms; call it with autocast switched off.

    Args:
        found: Gram blocks and norms of q, k and tokens.
        scale: factor that the tokens are multiplied by as values.
        terms: the attention.
    """
    temperature, tokens = widen(terms.temperature), terms.tokens
    if tokens is None or found.g_norms is None:
        return Mixing(
            (temperature * _cosines(found.qk, divisor(found.q_norms), divisor(found.k_norms))).softmax(-1), None
        )
    assert found.qg is not None
    assert found.gk is not None
    assert found.gg is not None
    # All rows and columns at once, (B, h, c+K, K+c): small matrices cost an operation each, whatever their size. The
    # tokens' columns stand first, so that one list of norms (q, g, k) has those of the rows and those of the columns.
    c, of_tokens = found.qk.shape[-2], found.qg.shape[-1]
    lengths = divisor(torch.cat([found.q_norms, found.g_norms, found.k_norms], dim=-2))
    products = torch.cat(
        [torch.cat([found.qg, found.qk], dim=-1), torch.cat([found.gg, found.gk], dim=-1)],
        dim=-2,
    )
    logits = temperature * _cosines(products, lengths[..., : c + of_tokens, :], lengths[..., c:, :])
    # A*, with the tokens' columns first.
    attention = logits.softmax(-1)
    onto_tokens = attention[..., :c, :of_tokens]
    # lam p, with p a local row's softmax mass on the tokens.
    gate = widen(tokens.gate)
    mass = gate * onto_tokens.sum(-1, keepdim=True)
    # alpha times the mean of the tokens' own rows A*[c:, :], or each, with K = c.
    own = attention[..., c:, :]
    if tokens.reinject == "mean":
        own = own.mean(2, keepdim=True)
    own = widen(tokens.alpha) * own
    # E = [(1 - lam p) softmax(local logits), lam A*[:c, c:]] + own
    local = (1 - mass) * logits[..., :c, of_tokens:].softmax(-1)
    return Mixing(local + own[..., of_tokens:], scale * (gate * onto_tokens + own[..., :of_tokens]))


def _rows(x: Tensor, heads: int) -> Tensor:
    """Splits a map into heads, (B, h*M, H, W) -> (B, h, M, N)."""
    return x.flatten(2).unflatten(1, (heads, -1))


def _cosines(products: Tensor, norms: Tensor, others: Tensor) -> Tensor:
    """Divides ``a b^T`` by the norms of the rows of a (..., rows of a, 1) and of b (..., rows of b, 1)."""
    return products / norms / others.transpose(-2, -1)
