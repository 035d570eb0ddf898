"""Products of q, k and tokens over the pixels, and their norms, summed up strip by strip."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import widen
from ..torch.gram import Gram
from .layout import by_pixel

Sums = tuple[Tensor, ...]
"""``q k^T`` (..., h, c, c), squares of q and k (..., h, c); then, with tokens, ``q g^T``, ``g k^T`` and ``g g^T``."""


def sums(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Sums:
    """Of one image, in the accumulation dtype: q and k (1, h*c, H, W), g (1, h*K, H, W)."""
    q, k = widen(q), widen(k)
    found = _product(q, k, heads), _squares(q, heads), _squares(k, heads)
    if g is None:
        return found
    q, k, g = (_rows(each, heads)[0] for each in (q, k, widen(g)))
    return *found, q.mT @ g, g.mT @ k, g.mT @ g


def add(total: Sums, more: Sums) -> None:
    """In place."""
    for ours, theirs in zip(total, more, strict=True):
        ours.add_(theirs)


def gram(found: list[Sums]) -> Gram:
    """Of all images."""
    return _gram(*(torch.stack(each) for each in zip(*found, strict=True)))


def differentiable_gram(q: Tensor, k: Tensor, g: Tensor | None, heads: int) -> Gram:
    """Of whole maps (B, h*c, H, W) and (B, h*K, H, W)."""
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
    return Gram(qk, _root(q), _root(k), qg, gk, gg, _root(gg.diagonal(dim1=-2, dim2=-1)))


def _product(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """``q k^T`` of each head, (1, h*c, H, W) twice -> (h, c, c).

    As the gradient of a 1x1 convolution's weight, which is this very sum: two to three times as fast as a product of
    matrices so narrow and so long.
    """
    weight = q.new_empty(()).expand(q.shape[1], k.shape[1] // heads, 1, 1)
    wanted = [False, True, False]
    _, found, _ = torch.ops.aten.convolution_backward(
        q, k, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], heads, wanted
    )
    return found.view(heads, -1, weight.shape[1])


def _squares(x: Tensor, heads: int) -> Tensor:
    """Sums over the pixels, (1, h*c, H, W) -> (h, c)."""
    # Not as a norm: PyTorch's is several times slower over pixels whose channels lie side by side.
    return by_pixel(x).square().sum((0, 1, 2)).view(heads, -1)


def _rows(x: Tensor, heads: int) -> Tensor:
    """(B, h*c, H, W) -> (B, h, N, c), a view."""
    return by_pixel(x).flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2)


def _root(squares: Tensor) -> Tensor:
    """Norms (..., c, 1), whose gradient is 0 where they are."""
    zero = squares == 0
    return torch.where(zero, 0, torch.where(zero, 1, squares).sqrt()).unsqueeze(-1)
