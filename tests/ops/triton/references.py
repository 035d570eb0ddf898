"""What the kernels compute, in plain PyTorch, for any device, dtype and layout; differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from exda_primitives.ops.precision import EPS, widen, without_autocast
from exda_primitives.ops.reference import step
from exda_primitives.ops.terms import NormTerms
from exda_primitives.ops.tokens import pool, softmax_over_space, unit_mean, upsample
from exda_primitives.ops.triton.compose import compose, compose_gradients
from exda_primitives.ops.triton.depthwise import Activation
from exda_primitives.ops.triton.fold import TokenMixing
from exda_primitives.ops.triton.fold_branch import Matrices
from exda_primitives.ops.triton.packed import parameter_gradients


class Blocks(NamedTuple):
    """Products (B, h, m, m), and the squared norms of the rows of q and of k, (B, h, m)."""

    products: Tensor
    q_squares: Tensor
    k_squares: Tensor


def blocks(gram: Tensor) -> Blocks:
    """Takes what ``gram`` returns apart."""
    return Blocks(gram[:, :, :-2], gram[:, :, -2], gram[:, :, -1])


def packed(products: Tensor, q_squares: Tensor, k_squares: Tensor) -> Tensor:
    """Joins the parts that ``blocks`` returns."""
    return torch.cat([products, q_squares[:, :, None], k_squares[:, :, None]], 2)


def gram_reference(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Tensor:
    """``gram`` in plain PyTorch, with concatenated rows; any dtype, device and layout."""
    q, k = (widen(x).unflatten(1, (heads, -1)) for x in (q, k))
    if g is not None:
        tokens = widen(g).unflatten(1, (heads, -1))
        q, k = torch.cat([q, tokens], 2), torch.cat([k, tokens], 2)
    with without_autocast(q):
        return packed(q @ k.transpose(-2, -1), q.square().sum(-1), k.square().sum(-1))


class Compose(torch.autograd.Function):
    """``compose`` with its gradients, which other operators take as they are."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None) -> Any:
        ctx.save_for_backward(matrix, weight, weight_bias)
        ctx.biased = bias is not None
        return compose(matrix, weight, weight_bias, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, shift_grad: Tensor) -> Any:
        matrix, weight, weight_bias = ctx.saved_tensors
        of_matrix, packed = compose_gradients(grad, shift_grad, torch.ones_like(matrix), *ctx.saved_tensors)
        of_bias = shift_grad.sum(0) if ctx.biased else None
        return of_matrix - 1, *parameter_gradients(packed, [weight, weight_bias]), of_bias


def compose_reference(
    matrix: Tensor, weight: Tensor, weight_bias: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``compose`` in plain PyTorch; any dtype, device and layout."""
    with without_autocast(matrix):
        shift = matrix @ weight_bias.to(matrix.dtype)
        return matrix @ weight.to(matrix.dtype), shift if bias is None else shift + bias.to(matrix.dtype)


def fold_reference(
    gram: Tensor, temperature: Tensor, left: Tensor, tokens: TokenMixing | None = None
) -> tuple[Tensor, Tensor | None]:
    """``fold`` in plain PyTorch; any dtype, device and layout."""
    products, q_squares, k_squares = blocks(gram)
    heads, m = q_squares.shape[1:]
    c = left.shape[1] // heads
    with without_autocast(products):
        temperature = widen(temperature).reshape(heads, 1, 1)
        logits = temperature * (products / _divisor(q_squares)[..., :, None] / _divisor(k_squares)[..., None, :])
        mixing = logits[:, :, :c, :c].softmax(-1)
        if tokens is not None:
            gate, alpha = (widen(x).reshape(heads, 1, 1) for x in (tokens.gate, tokens.alpha))
            onto_tokens = logits[:, :, :c, c:]
            mass = onto_tokens.logsumexp(-1, keepdim=True) - logits[:, :, :c, :c].logsumexp(-1, keepdim=True)
            mass = gate * mass.sigmoid()
            own = logits[:, :, c:].softmax(-1)
            if tokens.reinject == "mean":
                own = own.mean(2, keepdim=True)
            mixing = torch.cat([(1 - mass) * mixing, mass * onto_tokens.softmax(-1)], -1) + alpha * own
        products_of_heads = widen(left).unflatten(1, (heads, c)).transpose(0, 1).to(mixing.dtype) @ mixing
        matrix, token_matrix = products_of_heads.transpose(1, 2).split([c, m - c], -1)
        return matrix.flatten(2), None if tokens is None else token_matrix.flatten(2) / tokens.cells


def _divisor(squares: Tensor) -> Tensor:
    # At 0 the square root's derivative is infinite, and a `where` after it would make that NaN (0 * inf).
    return torch.where(squares == 0, 1, squares).sqrt().clamp_min(EPS)


def fold_branch_reference(
    gram: Tensor,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    weight: Tensor,
    weight_bias: Tensor,
    bias: Tensor | None = None,
) -> Matrices:
    """``fold_branch`` in plain PyTorch; any dtype, device and layout."""
    value, onto_tokens = fold_reference(gram, temperature, left, tokens)
    return Matrices(value, onto_tokens, *compose_reference(value, weight, weight_bias, bias))


def token_maps_reference(phi: Tensor, stride: int) -> Tensor:
    """``token_maps`` in PyTorch's own operations: any device, any dtype, differentiable."""
    maps, _ = unit_mean(softmax_over_space(pool(phi, stride)), "mean")
    return upsample(maps, phi.shape[2:]).to(phi.dtype)


def mix_reference(
    matrices: Sequence[Tensor], maps: Sequence[Tensor], shift: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """``mix`` in plain PyTorch, in the accumulation dtype throughout; any device and layout."""
    with without_autocast(maps[0]):
        products = [widen(m).to(widen(x).dtype) @ widen(x) for m, x in zip(matrices, maps, strict=True)]
        out = torch.stack(products).sum(0)
        if shift is not None:
            out = out + shift.to(out.dtype)[:, :, None]
        if residual is not None:
            out = out + residual
        return out.to(maps[0].dtype)


def depthwise_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    shift: Tensor | None = None,
) -> Tensor:
    """``depthwise`` in PyTorch's own operations: any device, any dtype, differentiable."""
    if shift is not None:
        x = x + shift[:, None, None]
    z = F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])
    if activation == "none":
        return z
    if activation == "gelu":
        return F.gelu(z)
    a, b = z.chunk(2, dim=1)
    return F.gelu(a) * b


def layer_norm_reference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool, eps: float
) -> Tensor:
    """``layer_norm`` in PyTorch's own operations: any device, any dtype, differentiable."""
    return step.norm(widen(x), NormTerms(weight, bias, subtract_mean, eps)).to(x.dtype)


def norm_pointwise_reference(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """``norm_pointwise`` in PyTorch's own operations: any device, any dtype, differentiable."""
    n = layer_norm_reference(widen(x), norm_weight, norm_bias, subtract_mean, eps)
    out = torch.einsum("oc,bchw->bohw", widen(weight), n)
    return (out if bias is None else out + bias[:, None, None]).to(x.dtype)
