"""Restormer's attention, and ExDA's on it, by itself or as a residual step: the algebra of ``ops.torch``.

A first pass over strips sums the Gram blocks and keeps v; a second one, in which the projection is part of the small
matrices, writes the output. q, k and the value's branch exist a strip at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..precision import product_dtype, widen, without_autocast
from ..terms import NormTerms, PackedQKVTerms, TokenTerms, ValueTerms
from ..tokens import pool, softmax_over_space, unit_mean, upsample
from ..torch.channel import mixing_of
from ..torch.fold import foldable_weight, through_blocks
from ..torch.gram import Gram
from ..torch.recompute import recomputes
from .gram import Sums, add, differentiable_gram, gram, sums
from .layers import Pair, convolved, gelu, normalised, pairs, pointwise
from .layout import add_into, by_channel, by_pixel, channels_last, empty
from .strips import strips
from .unsupported import parameters


def attention_step(x: Tensor, norm: NormTerms, terms: PackedQKVTerms, like: Tensor | None = None) -> Tensor:
    """``x + mdta(norm(x))``, (B, C, H, W) -> (B, C, H, W).

    The output is contiguous or channels_last as ``like`` is; channels_last without it, and where autograd records.
    """
    given, x = x, channels_last(x)
    if recomputes(x, *parameters(norm, terms)):
        return _differentiable(x, norm, terms)
    # A copy of one's own is written over.
    out = x if like is None and x is not given else empty(x, like)
    dtype = product_dtype(x)
    with without_autocast(x):
        for image, rows, change in _strips_of_output(x, norm, terms, dtype):
            add_into(out[image, :, rows], x[image, :, rows], change)
    return out


def attention(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """``mdta(x)``, (B, C, H, W) -> (B, C, H, W) in the layout of ``x``; without gradients."""
    dtype = product_dtype(x)
    out = torch.empty_like(x, dtype=dtype)
    with without_autocast(x):
        for image, rows, found in _strips_of_output(channels_last(x.to(dtype)), None, terms, dtype):
            out[image, :, rows] = found
    return out


class _Matrices(NamedTuple):
    """What the value and the tokens of each image are multiplied by, (B, C, C) and (B, C, h*K), and the bias (C,)."""

    onto_value: Tensor
    onto_tokens: Tensor | None
    bias: Tensor | None


def _differentiable(x: Tensor, norm: NormTerms, terms: PackedQKVTerms) -> Tensor:
    """The same of whole maps, nothing in place."""
    n, heads = normalised(x, norm), terms.temperature.shape[-3]
    q, k, v = (convolved(n, pair) for pair in pairs(*terms.qkv, 3))
    g, scale = None, 1.0
    if terms.tokens is not None and terms.tokens.weight is not None:
        g, scale = _token_maps(pointwise(n, terms.tokens.weight), terms.tokens)
    matrices = _matrices(differentiable_gram(q, k, g, heads), scale, terms)
    out = x + _product(_value(v, slice(None), terms.value), matrices.onto_value)
    if g is not None and matrices.onto_tokens is not None:
        out = out + _product(g, matrices.onto_tokens)
    return out if matrices.bias is None else out + matrices.bias[:, None, None]


def _strips_of_output(
    x: Tensor, norm: NormTerms | None, terms: PackedQKVTerms, dtype: torch.dtype
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Image, rows and ``mdta(norm(x))`` of them, (1, C, rows, W) of ``dtype``, of all images and rows in turn.

    Convolutions and products are of ``dtype``; norm, Gram sums and small matrices of the accumulation dtype.
    """
    g, scale = None, 1.0
    if terms.tokens is not None:
        g, scale = _token_maps(_logits(x, norm, terms.tokens, dtype), terms.tokens)
    found, values = _first_pass(x, norm, terms, g, dtype)
    return _second_pass(x, values, g, _matrices(found, scale, terms), terms)


def _product(x: Tensor, matrices: Tensor) -> Tensor:
    """Each image by its matrix, (B, C, H, W) and (B, C', C) -> (B, C', H, W)."""
    pixels = by_pixel(x)
    return by_channel((pixels.flatten(1, 2) @ matrices.mT).unflatten(1, pixels.shape[1:3]))


def _normalised(x: Tensor, norm: NormTerms | None, dtype: torch.dtype) -> Tensor:
    return x if norm is None else normalised(x, norm).to(dtype)


def _logits(x: Tensor, norm: NormTerms | None, tokens: TokenTerms, dtype: torch.dtype) -> Tensor:
    """Of the tokens, (B, h*K, H, W)."""
    assert tokens.weight is not None
    logits = x.new_empty((len(x), len(tokens.weight), *x.shape[2:]), dtype=dtype)
    for strip in strips(x, 2 * x.shape[1]):
        images, rows = strip.images, strip.rows()
        logits[images, :, rows] = pointwise(_normalised(x[images, :, rows], norm, dtype), tokens.weight)
    return logits


def _token_maps(logits: Tensor, tokens: TokenTerms) -> tuple[Tensor, float]:
    """G (B, h*K, H, W) with mean 1, and the factor that its use as values still needs."""
    # Phi and the pooling commute: h*K channels to pool instead of C.
    maps, scale = unit_mean(softmax_over_space(pool(logits, tokens.stride)), tokens.scale)
    maps = upsample(maps, logits.shape[2:]).to(logits.dtype)
    return maps.contiguous(memory_format=torch.channels_last), scale


def _first_pass(
    x: Tensor, norm: NormTerms | None, terms: PackedQKVTerms, g: Tensor | None, dtype: torch.dtype
) -> tuple[Gram, list[Tensor]]:
    """Gram blocks and norms of q, k and g, and v strip by strip, with the rows that the value's branch reads."""
    onto_q, onto_k, onto_v = pairs(*terms.qkv, 3)
    heads, beyond = terms.temperature.shape[-3], _reach(terms.value)
    values, found = list[Tensor](), dict[int, Sums]()
    for strip in strips(x, 3 * x.shape[1]):
        n = _normalised(x[strip.images, :, strip.rows(1 + beyond)], norm, dtype)
        values.append(convolved(n, onto_v, strip.within(1 + beyond, beyond)))
        n = n[:, :, strip.within(1 + beyond, 1)]
        q, k = convolved(n, onto_q, strip.within(1)), convolved(n, onto_k, strip.within(1))
        for index, image in enumerate(range(len(x))[strip.images]):
            one, own = slice(index, index + 1), None if g is None else g[image : image + 1, :, strip.rows()]
            of_strip = sums(q[one], k[one], own, heads)
            if image in found:
                add(found[image], of_strip)
            else:
                found[image] = of_strip
    return gram([*found.values()]), values


def _second_pass(
    x: Tensor, values: list[Tensor], g: Tensor | None, matrices: _Matrices, terms: PackedQKVTerms
) -> Iterator[tuple[slice, slice, Tensor]]:
    """See ``_strips_of_output``; of ``x`` only the shape is used."""
    beyond = _reach(terms.value)
    for strip, around in zip(strips(x, 3 * x.shape[1]), values, strict=True):
        rows, value = strip.rows(), _value(around, strip.within(beyond), terms.value)
        for index, image in enumerate(range(len(x))[strip.images]):
            one = slice(image, image + 1)
            total = pointwise(value[index : index + 1], matrices.onto_value[image, :, :, None, None], matrices.bias)
            if g is not None and matrices.onto_tokens is not None:
                total.add_(pointwise(g[one, :, rows], matrices.onto_tokens[image, :, :, None, None]))
            yield one, rows, total


def _reach(value: ValueTerms | None) -> int:
    """Rows around a strip that the value reads."""
    return 0 if value is None or value.branch is None else 1


def _value(v: Tensor, rows: slice, value: ValueTerms | None) -> Tensor:
    """V' of these rows of v, (B, C, H, W).

    Its last convolution is not folded into the matrices: on its own it takes no more products, and none of matrices.
    """
    own = v[:, :, rows]
    if value is None or value.form == "none":
        return own
    if value.branch is None:
        return gelu(own) if value.form == "gelu" else own.sigmoid()
    branch = value.branch
    found = pointwise(gelu(convolved(v, Pair(*branch[:4]), rows)), branch.out_weight, branch.out_bias)
    return found.add_(own) if value.form == "residual" else found


def _matrices(found: Gram, scale: float, terms: PackedQKVTerms) -> _Matrices:
    weight, bias = foldable_weight(terms)
    assert weight is not None
    weight = widen(weight)
    mixing = mixing_of(found, scale, terms)
    onto_tokens = None if mixing.token is None else through_blocks(weight, mixing.token)
    return _Matrices(through_blocks(weight, mixing.local), onto_tokens, bias)
