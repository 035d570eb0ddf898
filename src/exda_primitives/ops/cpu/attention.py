"""Restormer's attention, with or without ExDA's primitives, by itself or as a residual step, strip by strip.

The algebra is that of ``ops.torch``. A first pass over strips of rows sums the Gram blocks and keeps v; a second one
writes the output, the projection folded into the small matrices. q, k and the value's branch only ever exist for one
strip.
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

    The output has the layout of ``like``, contiguous or channels_last; channels_last without it, and if autograd
    records.
    """
    given, x = x, channels_last(x)
    if recomputes(x, *parameters(norm, terms)):
        return _differentiable(x, norm, terms)
    # If `channels_last` made a copy, nobody else has it: it is written over, the first pass being done with it by then.
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
    """The folded matrices of each image in ``out = M V' + M_G G + bias``.

    Attributes:
        onto_value: M, (B, C, C).
        onto_tokens: M_G, (B, C, h*K), or None without tokens.
        bias: (C,) or None.
    """

    onto_value: Tensor
    onto_tokens: Tensor | None
    bias: Tensor | None


def _differentiable(x: Tensor, norm: NormTerms, terms: PackedQKVTerms) -> Tensor:
    """``attention_step`` on whole maps, with no operation in place, so that autograd can differentiate it."""
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
    """Yields (image, rows, ``mdta(norm(x))`` there) strip by strip, the last a (1, C, rows, W) tensor of ``dtype``.

    Convolutions and products are computed in ``dtype``; norm, Gram sums and small matrices in the accumulation dtype.
    """
    if len([*strips(x, 3 * x.shape[1])]) == 1:
        # Normalised once, for the tokens and for the first pass.
        x, norm = _normalised(x, norm, dtype), None
    # The tokens first: the softmax over space needs the logits of the whole map, the Gram sums need G.
    g, scale = None, 1.0
    if terms.tokens is not None:
        g, scale = _token_maps(_logits(x, norm, terms.tokens, dtype), terms.tokens)
    found, values = _first_pass(x, norm, terms, g, dtype)
    return _second_pass(x, values, g, _matrices(found, scale, terms), terms)


def _product(x: Tensor, matrices: Tensor) -> Tensor:
    """Multiplies each image's pixels by its matrix, (B, C, H, W) and (B, C', C) -> (B, C', H, W)."""
    pixels = by_pixel(x)
    return by_channel((pixels.flatten(1, 2) @ matrices.mT).unflatten(1, pixels.shape[1:3]))


def _plus_product(total: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """``total + matrix x`` at each pixel, (1, C, H, W), (1, M, H, W) and (C, M) -> (1, C, H, W); overwrites ``total``.

    For few channels M a product of matrices in place takes less than half the time of a convolution and a sum. A map
    of a single channel counts as contiguous and as channels_last: a convolution may then choose the wrong layout, in
    which the sum takes forty times as long.
    """
    pixels = by_pixel(total)
    rows = pixels.reshape(-1, len(matrix)).addmm_(by_pixel(x).reshape(-1, x.shape[1]), matrix.to(total.dtype).mT)
    return by_channel(rows.view(pixels.shape))


def _normalised(x: Tensor, norm: NormTerms | None, dtype: torch.dtype) -> Tensor:
    return x if norm is None else normalised(x, norm).to(dtype)


def _logits(x: Tensor, norm: NormTerms | None, tokens: TokenTerms, dtype: torch.dtype) -> Tensor:
    """The tokens' logits ``Phi norm(x)``, (B, h*K, H, W), strip by strip."""
    assert tokens.weight is not None
    logits = x.new_empty((len(x), len(tokens.weight), *x.shape[2:]), dtype=dtype)
    for strip in strips(x, 2 * x.shape[1]):
        images, rows = strip.images, strip.rows()
        logits[images, :, rows] = pointwise(_normalised(x[images, :, rows], norm, dtype), tokens.weight)
    return logits


def _token_maps(logits: Tensor, tokens: TokenTerms) -> tuple[Tensor, float]:
    """Returns G (B, h*K, H, W) with mean 1, and the factor that it is multiplied by as a value."""
    # Phi and the pooling commute: logits of h*K channels are pooled, not maps of C.
    maps, scale = unit_mean(softmax_over_space(pool(logits, tokens.stride)), tokens.scale)
    maps = upsample(maps, logits.shape[2:]).to(logits.dtype)
    return maps.contiguous(memory_format=torch.channels_last), scale


def _first_pass(
    x: Tensor, norm: NormTerms | None, terms: PackedQKVTerms, g: Tensor | None, dtype: torch.dtype
) -> tuple[Gram, list[Tensor]]:
    """Returns the Gram blocks and norms of q, k and g, and v strip by strip, with the rows that the branch reads."""
    onto_q, onto_k, onto_v = pairs(*terms.qkv, 3)
    heads, beyond = terms.temperature.shape[-3], _reach(terms.value)
    values, found = list[Tensor](), dict[int, Sums]()
    for strip in strips(x, 3 * x.shape[1]):
        # Each 3x3 convolution reads one row beyond its output: that of q, k, v one, that of the value's branch another.
        n = _normalised(x[strip.images, :, strip.rows(1 + beyond)], norm, dtype)
        values.append(convolved(n, onto_v, strip.rows_in(1 + beyond, beyond)))
        n = n[:, :, strip.rows_in(1 + beyond, 1)]
        q, k = convolved(n, onto_q, strip.rows_in(1)), convolved(n, onto_k, strip.rows_in(1))
        for index, image in enumerate(range(len(x))[strip.images]):
            # A Gram sum is of one image; a strip may be several images, or a part of one.
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
    """Yields what ``_strips_of_output`` does; of ``x`` only the shape and the dtype are used."""
    beyond = _reach(terms.value)
    for strip, around in zip(strips(x, 3 * x.shape[1]), values, strict=True):
        rows, value = strip.rows(), _value(around, strip.rows_in(beyond), terms.value)
        for index, image in enumerate(range(len(x))[strip.images]):
            one = slice(image, image + 1)
            # out = M V' + M_G G + bias
            total = pointwise(value[index : index + 1], matrices.onto_value[image, :, :, None, None], matrices.bias)
            if g is not None and matrices.onto_tokens is not None:
                total = _plus_product(total, g[one, :, rows], matrices.onto_tokens[image])
            yield one, rows, total


def _reach(value: ValueTerms | None) -> int:
    """Rows above and below a strip that the value reads: one if it has a depthwise convolution."""
    return 0 if value is None or value.branch is None else 1


def _value(v: Tensor, rows: slice, value: ValueTerms | None) -> Tensor:
    """V' at these rows of v, (B, C, rows, W).

    The branch's last convolution W2 is not folded into the matrices: ``W2 t`` takes as many products as ``(M W2) t``,
    and the product ``M W2`` is saved.
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
    """``[M, M_G] = W_out blockdiag(E)`` of each image, from its Gram blocks."""
    weight, bias = foldable_weight(terms)
    assert weight is not None
    weight = widen(weight)
    mixing = mixing_of(found, scale, terms)
    onto_tokens = None if mixing.token is None else through_blocks(weight, mixing.token)
    return _Matrices(through_blocks(weight, mixing.local), onto_tokens, bias)
