"""Gram blocks of q, k and the tokens over the pixels, and their norms; backward keeps no float32 copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..precision import norms, widen, without_autocast
from .products import product_of_heads
from .recompute import makes_graph, recomputes

# Pixels that one product sums over.
_STRIP = 8192


class Gram(NamedTuple):
    """Blocks ``a b^T``, (B, h, rows of a, rows of b), and norms, (B, h, rows, 1).

    Without tokens, the blocks and norms of g are None.
    """

    qk: Tensor
    q_norms: Tensor
    k_norms: Tensor
    qg: Tensor | None = None
    gk: Tensor | None = None
    gg: Tensor | None = None
    g_norms: Tensor | None = None


def gram(q: Tensor, k: Tensor, g: Tensor | None) -> Gram:
    """Computes blocks and norms of q, k (B, h, c, N) and tokens (B, h, K, N) or None, in their accumulation dtype.

    Call it with autocast switched off.
    """
    return Gram(*(_Gram.apply(q, k, g) if recomputes(q, k, g) else _gram(q, k, g)))


def _gram(q: Tensor, k: Tensor, g: Tensor | None) -> tuple[Tensor, ...]:
    q, k = widen(q), widen(k)
    of_channels = q @ k.transpose(-2, -1), norms(q), norms(k)
    if g is None:
        return of_channels
    g = widen(g)
    return *of_channels, _of_few_rows(q, g), _of_few_rows(g, k), _of_few_rows(g, g), norms(g)


def _of_few_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a b^T``, where a or b has few rows: a CPU sums that pixel by pixel, and would round at every pixel.

    On a CPU it is summed strip by strip, so that the rounding errors stay as small as those of ``q k^T``.
    """
    if a.device.type != "cpu" or makes_graph() or a.shape[-1] <= _STRIP:
        return a @ b.transpose(-2, -1)
    strips = zip(a.split(_STRIP, dim=-1), b.split(_STRIP, dim=-1), strict=True)
    total, *others = (x @ y.transpose(-2, -1) for x, y in strips)
    for each in others:
        total = total + each
    return total


class _Gram(torch.autograd.Function):
    """``_gram`` whose backward keeps the rows in their own dtype and widens them again."""

    generate_vmap_rule = True
    forward = staticmethod(_gram)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
        _, q_norms, k_norms, *_, g_norms = Gram(*output)
        ctx.save_for_backward(*inputs, q_norms, k_norms, g_norms)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *rows, q_norms, k_norms, g_norms = ctx.saved_tensors
        d_qk, d_q_norms, d_k_norms, *of_tokens = grads
        q, k, dg = widen(rows[0]), widen(rows[1]), None
        with without_autocast(q):
            # With D_ab the gradient of a b^T: dq = D_qk k + D_qg g, dk = D_qk^T q + D_gk^T g,
            # dg = D_qg^T q + D_gk k + (D_gg + D_gg^T) g; each plus its part through the norms.
            dq, dk = product_of_heads(d_qk, k), product_of_heads(d_qk.transpose(-2, -1), q)
            _add_through_norms(dq, q, q_norms, d_q_norms)
            _add_through_norms(dk, k, k_norms, d_k_norms)
            if of_tokens:
                d_qg, d_gk, d_gg, d_g_norms = of_tokens
                g = widen(rows[2])
                dq += d_qg @ g
                dk += d_gk.transpose(-2, -1) @ g
                dg = d_qg.transpose(-2, -1) @ q + d_gk @ k + (d_gg + d_gg.transpose(-2, -1)) @ g
                _add_through_norms(dg, g, g_norms, d_g_norms)
        return tuple(None if dx is None else dx.to(x.dtype) for dx, x in zip((dq, dk, dg), rows, strict=True))


def _add_through_norms(total: Tensor, rows: Tensor, lengths: Tensor, grad: Tensor) -> None:
    """Adds the rows' gradient through their norms, ``grad * rows / lengths``, to ``total`` in place."""
    zero = lengths == 0
    # Rows of zeros get 0. They are divided by 1: with 0 in the branch not taken, the second derivative would be NaN.
    total.addcmul_(torch.where(zero, 0, grad / torch.where(zero, 1, lengths)), rows)
