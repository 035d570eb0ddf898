"""Gram blocks of q, k and the tokens over the pixels, and their norms, summed strip by strip."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import widen
from ..torch.gram import Gram
from .layout import by_pixel

Sums = tuple[Tensor, ...]
"""``q k^T`` (..., h, c, c), squared norms of q and k (..., h, c); with tokens also ``q g^T``, ``g k^T``, ``g g^T``."""


def sums(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Sums:
    """Computes the sums of one image or strip in the accumulation dtype: q, k (1, h*c, H, W), g (1, h*K, H, W)."""
    q, k = widen(q), widen(k)
    found = _product(q, k, heads), _squares(q, heads), _squares(k, heads)
    if g is None:
        return found
    q, k, g = (_rows(each, heads)[0] for each in (q, k, widen(g)))
    return *found, q.mT @ g, g.mT @ k, g.mT @ g


def add(total: Sums, more: Sums) -> None:
    """Adds another strip's sums to ``total`` in place."""
    for ours, theirs in zip(total, more, strict=True):
        ours.add_(theirs)


def gram(found: list[Sums]) -> Gram:
    """Makes one ``Gram`` of the sums of each image."""
    return _gram(*(torch.stack(each) if len(each) > 1 else each[0][None] for each in zip(*found, strict=True)))


def differentiable_gram(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Gram:
    """Computes the ``Gram`` of whole maps, q and k (B, h*c, H, W), g (B, h*K, H, W), so that autograd can follow."""
    q, k = _rows(q, heads), _rows(k, heads)
    found = q.mT @ k, q.square().sum(-2), k.square().sum(-2)
    if g is None:
        return _gram(*found)
    g = _rows(g, heads)
    return _gram(*found, q.mT @ g, g.mT @ k, g.mT @ g)


def _gram(qk: Tensor, q: Tensor, k: Tensor, *of_tokens: Tensor) -> Gram:
    if not of_tokens:
        return Gram(qk, _root(q), _root(k))
    qg, gk, gg = of_tokens
    # The diagonal of g g^T has the squared norms of g.
    return Gram(qk, _root(q), _root(k), qg, gk, gg, _root(gg.diagonal(dim1=-2, dim2=-1)))


def _product(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """``q k^T`` of each head, (1, h*c, H, W) twice -> (h, c, c).

    Computed as the weight gradient of a 1x1 convolution with a group per head, which is this very sum: two to three
    times as fast as a matrix product of so few rows and so many columns.
    """
    # Only its shape is read.
    weight = q.new_empty(()).expand(q.shape[1], k.shape[1] // heads, 1, 1)
    wanted = [False, True, False]
    _, found, _ = torch.ops.aten.convolution_backward(
        q, k, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], heads, wanted
    )
    return found.view(heads, -1, weight.shape[1])


def _squares(x: Tensor, heads: int) -> Tensor:
    """Squared norms over the pixels, (1, h*c, H, W) -> (h, c)."""
    # Not by PyTorch's norm, which is several times slower on channels_last maps.
    return by_pixel(x).square().sum((0, 1, 2)).view(heads, -1)


def _rows(x: Tensor, heads: int) -> Tensor:
    """Splits a map into heads, (B, h*c, H, W) -> (B, h, N, c), a view."""
    return by_pixel(x).flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2)


def _root(squares: Tensor) -> Tensor:
    """Norms (..., c, 1) from their squares (..., c); where a norm is 0, so is its gradient."""
    if not squares.requires_grad:
        return squares.sqrt().unsqueeze(-1)
    # The root's derivative at 0 is infinite: 1 takes its place there.
    zero = squares == 0
    return torch.where(zero, 0, torch.where(zero, 1, squares).sqrt()).unsqueeze(-1)
