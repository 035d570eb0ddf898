"""Products of the rows of q, k and tokens over the pixels, and their norms; backward keeps no float32 copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..precision import norms, widen, without_autocast
from .products import product_of_heads
from .recompute import makes_graph, recomputes

# Pixels whose products are summed up in one go.
_STRIP = 8192


class Gram(NamedTuple):
    """Blocks ``a b^T``, (B, h, rows of a, rows of b), and norms, (B, h, rows, 1); without tokens the first three."""

    qk: Tensor
    q_norms: Tensor
    k_norms: Tensor
    qg: Tensor | None = None
    gk: Tensor | None = None
    gg: Tensor | None = None
    g_norms: Tensor | None = None


def gram(q: Tensor, k: Tensor, g: Tensor | None) -> Gram:
    """Of q and k (B, h, c, N) and tokens (B, h, K, N), in their accumulation dtype; not under autocast."""
    return Gram(*(_Gram.apply(q, k, g) if recomputes(q, k, g) else _gram(q, k, g)))


def _gram(q: Tensor, k: Tensor, g: Tensor | None) -> tuple[Tensor, ...]:
    q, k = widen(q), widen(k)
    of_channels = q @ k.transpose(-2, -1), norms(q), norms(k)
    if g is None:
        return of_channels
    g = widen(g)
    return *of_channels, _of_few_rows(q, g), _of_few_rows(g, k), _of_few_rows(g, g), norms(g)


def _of_few_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a b^T``, one of which has so few rows that a processor sums pixel after pixel, and rounds after each."""
    if a.device.type != "cpu" or makes_graph() or a.shape[-1] <= _STRIP:
        return a @ b.transpose(-2, -1)
    strips = zip(a.split(_STRIP, dim=-1), b.split(_STRIP, dim=-1), strict=True)
    total, *others = (x @ y.transpose(-2, -1) for x, y in strips)
    for each in others:
        total = total + each
    return total


class _Gram(torch.autograd.Function):
    """Keeps the rows in their own dtype and widens them anew."""

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
    """The rows' gradient through their norms, in place."""
    zero = lengths == 0
    # Divided by 0 first, it would be NaN in the second derivative.
    total.addcmul_(torch.where(zero, 0, grad / torch.where(zero, 1, lengths)), rows)
