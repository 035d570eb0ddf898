"""Products of the rows of q, k and tokens over the pixels, and their norms; backward keeps no float32 copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..precision import accumulation_dtype, norms, widen, without_autocast
from .recording import recomputes


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
    if q.dtype is accumulation_dtype(q.dtype) or not recomputes(q, k, g):
        return Gram(*_gram(q, k, g))
    return Gram(*_Gram.apply(q, k, g))


def _gram(q: Tensor, k: Tensor, g: Tensor | None) -> tuple[Tensor, ...]:
    q, k = widen(q), widen(k)
    of_channels = q @ k.transpose(-2, -1), norms(q), norms(k)
    if g is None:
        return of_channels
    g = widen(g)
    return *of_channels, q @ g.transpose(-2, -1), g @ k.transpose(-2, -1), g @ g.transpose(-2, -1), norms(g)


class _Gram(torch.autograd.Function):
    """Keeps the rows in their own half type and widens them anew."""

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
            dq = d_qk @ k + _through_norms(q, q_norms, d_q_norms)
            dk = d_qk.transpose(-2, -1) @ q + _through_norms(k, k_norms, d_k_norms)
            if of_tokens:
                d_qg, d_gk, d_gg, d_g_norms = of_tokens
                g = widen(rows[2])
                dq = dq + d_qg @ g
                dk = dk + d_gk.transpose(-2, -1) @ g
                dg = d_qg.transpose(-2, -1) @ q + d_gk @ k + (d_gg + d_gg.transpose(-2, -1)) @ g
                dg = dg + _through_norms(g, g_norms, d_g_norms)
        return tuple(None if dx is None else dx.to(x.dtype) for dx, x in zip((dq, dk, dg), rows, strict=True))


def _through_norms(rows: Tensor, lengths: Tensor, grad: Tensor) -> Tensor:
    zero = lengths == 0
    # Divided by 0 first, it would be NaN in the second derivative.
    return torch.where(zero, 0, grad / torch.where(zero, 1, lengths)) * rows
