"""Restormer's attention, and ExDA's on it, as a residual step: the algebra of ``ops.torch``.

A first pass over strips sums the Gram blocks and keeps v; a second one, in which the projection is part of the small
matrices, writes the output. q, k and the value's branch exist a strip at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import FusedTerms, NormTerms, TokenTerms, ValueTerms
from ..tokens import pool, softmax_over_space, unit_mean, upsample
from ..torch.channel import mixing_of
from ..torch.fold import foldable_weight, through_blocks
from ..torch.gram import Gram
from ..torch.recording import recomputes
from .gram import Sums, add, differentiable_gram, gram, sums
from .layers import Pair, convolved, gelu, normalised, pairs, pointwise
from .layout import add_into, by_channel, by_pixel, channels_last, empty
from .obstacles import parameters
from .strips import strips


def attention_step(x: Tensor, norm: NormTerms, terms: FusedTerms, like: Tensor | None = None) -> Tensor:
    """``x + mdta(norm(x))``, (B, C, H, W) -> (B, C, H, W).

    The output is contiguous or channels_last as ``like`` is; channels_last without it, and where autograd records.
    """
    given, x = x, channels_last(x)
    if recomputes(x, *parameters(norm, terms)):
        return _differentiable(x, norm, terms)
    g, scale = (None, 1.0) if terms.tokens is None else _token_maps(_logits(x, norm, terms.tokens), terms.tokens)
    found, values = _first_pass(x, norm, terms, g)
    # A copy of one's own is written over.
    out = x if like is None and x is not given else empty(x, like)
    _second_pass(out, x, values, g, _matrices(found, scale, terms))
    return out


class _Matrices(NamedTuple):
    """What v, its branch and the tokens of each image are multiplied by, (B, C, ...), and a shift (B, C)."""

    onto_v: Tensor | None
    onto_branch: Tensor | None
    onto_tokens: Tensor | None
    shift: Tensor | None
    value: ValueTerms | None

    def maps(self, around: Tensor, rows: slice, g: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """The matrices and the maps that they are for; ``around`` is v with neighbouring rows, ``g`` without."""
        found, value = [], self.value
        if self.onto_v is not None:
            v = around[:, :, rows]
            if value is not None and value.branch is None and value.form in ("gelu", "sigmoid"):
                v = gelu(v) if value.form == "gelu" else v.sigmoid()
            found.append((self.onto_v, v))
        if self.onto_branch is not None and value is not None and value.branch is not None:
            found.append((self.onto_branch, gelu(convolved(around, Pair(*value.branch[:4]), rows))))
        if self.onto_tokens is not None and g is not None:
            found.append((self.onto_tokens, g))
        return found


def _differentiable(x: Tensor, norm: NormTerms, terms: FusedTerms) -> Tensor:
    """The same of whole maps, nothing in place."""
    n, heads = normalised(x, norm), terms.temperature.shape[-3]
    q, k, v = (convolved(n, pair) for pair in pairs(*terms.qkv, 3))
    g, scale = None, 1.0
    if terms.tokens is not None and terms.tokens.weight is not None:
        g, scale = _token_maps(pointwise(n, terms.tokens.weight), terms.tokens)
    matrices = _matrices(differentiable_gram(q, k, g, heads), scale, terms)
    out = by_pixel(x)
    for matrix, each in matrices.maps(v, slice(None), g):
        out = out + (by_pixel(each).flatten(1, 2) @ matrix.mT).view_as(out)
    return by_channel(out if matrices.shift is None else out + matrices.shift[:, None, None])


def _logits(x: Tensor, norm: NormTerms, tokens: TokenTerms) -> Tensor:
    """Of the tokens, (B, h*K, H, W)."""
    assert tokens.weight is not None
    logits = x.new_empty((len(x), len(tokens.weight), *x.shape[2:]))
    for strip in strips(x, 2 * x.shape[1]):
        images, rows = strip.images, strip.rows()
        logits[images, :, rows] = pointwise(normalised(x[images, :, rows], norm), tokens.weight)
    return logits


def _token_maps(logits: Tensor, tokens: TokenTerms) -> tuple[Tensor, float]:
    """G (B, h*K, H, W) with mean 1, and the factor that its use as values still needs."""
    # Phi and the pooling commute: h*K channels to pool instead of C.
    maps, scale = unit_mean(softmax_over_space(pool(logits, tokens.stride)), tokens.scale)
    return upsample(maps, logits.shape[2:]).contiguous(memory_format=torch.channels_last), scale


def _first_pass(x: Tensor, norm: NormTerms, terms: FusedTerms, g: Tensor | None) -> tuple[Gram, list[Tensor]]:
    """Gram blocks and norms of q, k and g, and v strip by strip, with the rows that the value's branch reads."""
    onto_q, onto_k, onto_v = pairs(*terms.qkv, 3)
    heads, beyond = terms.temperature.shape[-3], _reach(terms.value)
    values, found = list[Tensor](), dict[int, Sums]()
    for strip in strips(x, 3 * x.shape[1]):
        n = normalised(x[strip.images, :, strip.rows(1 + beyond)], norm)
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


def _second_pass(out: Tensor, x: Tensor, values: list[Tensor], g: Tensor | None, matrices: _Matrices) -> None:
    beyond = _reach(matrices.value)
    for strip, v in zip(strips(x, 3 * x.shape[1]), values, strict=True):
        for index, image in enumerate(range(len(x))[strip.images]):
            one, rows = slice(image, image + 1), strip.rows()
            shift = None if matrices.shift is None else matrices.shift[image]
            tokens = None if g is None else g[one, :, rows]
            total = None
            for matrix, each in matrices.maps(v[index : index + 1], strip.within(beyond), tokens):
                weight = matrix[image, :, :, None, None]
                total = pointwise(each, weight, shift) if total is None else total.add_(pointwise(each, weight))
            assert total is not None
            add_into(out[one, :, rows], x[one, :, rows], total)


def _reach(value: ValueTerms | None) -> int:
    """Rows around a strip that the value reads."""
    return 0 if value is None or value.branch is None else 1


def _matrices(found: Gram, scale: float, terms: FusedTerms) -> _Matrices:
    weight, bias = foldable_weight(terms)
    assert weight is not None
    mixing, value = mixing_of(found, scale, terms), terms.value
    matrix = through_blocks(weight, mixing.local)
    onto_tokens = None if mixing.token is None else through_blocks(weight, mixing.token)
    shift = None if bias is None else bias.expand(len(matrix), -1)
    if value is None or value.branch is None:
        return _Matrices(matrix, None, onto_tokens, shift, value)
    of_branch = matrix @ value.branch.out_bias
    onto_branch = matrix @ value.branch.out_weight.flatten(1)
    onto_v = matrix if value.form == "residual" else None
    return _Matrices(onto_v, onto_branch, onto_tokens, of_branch if shift is None else of_branch + shift, value)
