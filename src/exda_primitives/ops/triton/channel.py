"""ExDA on channel attention by few passes over the maps: the algebra of ``ops.torch``, on kernels.

For one attention on C channels: the 1x1 convolution to q, k, v with the tokens' logits as its last rows; one depthwise
pass; the token branch on the logits; one pass for all Gram blocks and norms; the small matrices in two launches; W1 and
one depthwise pass with GELU for the value; one product that reads v, t and the tokens and writes the output.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import without_autocast
from ..terms import CrossTerms, FusedTerms, Map, Projection, TokenTerms, ValueTerms
from ..torch.fold import foldable_weight
from .depthwise import convolution_obstacle, depthwise
from .fold import TokenMixing, compose, fold
from .gram import gram
from .launch import device_obstacle, dtype_obstacle
from .mix import mix
from .norm_pointwise import pointwise
from .tokens import obstacle as tokens_obstacle
from .tokens import token_maps


def mdta_obstacle(x: Tensor, terms: FusedTerms) -> str | None:
    """Why :func:`mdta` cannot be computed on kernels; None if it can."""
    return _obstacle(x, terms, terms.qkv)


def cross_obstacle(x: Tensor, y: Tensor, terms: CrossTerms) -> str | None:
    """Why :func:`cross` cannot be computed on kernels; None if it can."""
    if x.dtype is not y.dtype:
        return f"the two maps are {x.dtype} and {y.dtype}"
    return _obstacle(y, terms, terms.q, terms.kv)


def mdta(x: Tensor, terms: FusedTerms) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)."""
    x = x.to(_compute_dtype(x))
    with without_autocast(x):
        qkv, logits = _projected(x, terms.qkv.pointwise, terms.tokens)
        q, k, v = _depthwise(qkv, terms.qkv.depthwise).chunk(3, dim=1)
        return _attend(q, k, v, logits, terms)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Two maps of (B, C, H, W) -> (B, C, H, W); q from ``x``, all else from ``y``."""
    x, y = x.to(_compute_dtype(x)), y.to(_compute_dtype(y))
    with without_autocast(x):
        q = _depthwise(_projected(x, terms.q.pointwise, None)[0], terms.q.depthwise)
        kv, logits = _projected(y, terms.kv.pointwise, terms.tokens)
        k, v = _depthwise(kv, terms.kv.depthwise).chunk(2, dim=1)
        return _attend(q, k, v, logits, terms)


def _obstacle(x: Tensor, terms: FusedTerms | CrossTerms, *projections: Projection) -> str | None:
    if terms.value is not None and terms.value.position == "after":
        return "the value comes after the aggregation, for which there are no kernels"
    dtype, maps = _compute_dtype(x), [each for projection in projections for each in projection]
    weights = [foldable_weight(each)[0] for each in (*maps, terms.project)]
    found = {weight.dtype for weight in weights if weight is not None}
    if torch.is_autocast_enabled(x.device.type):
        if None in weights:
            return "under autocast, a projection that is more than a convolution has to be called by itself"
    elif found - {x.dtype}:
        return f"the map is {x.dtype}, the projections are {', '.join(map(str, found))}"
    obstacle = device_obstacle(x) or dtype_obstacle(x.new_empty(0, dtype=dtype))
    return obstacle or (None if terms.tokens is None else tokens_obstacle(x, terms.tokens.stride))


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast, if it is on, makes of the inputs of a convolution."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _projected(x: Tensor, convolution: Map, tokens: TokenTerms | None) -> tuple[Tensor, Tensor | None]:
    """The 1x1 convolution of x and the tokens' logits (B, h*K, H, W), in one product if the convolution is bare."""
    weight, bias = foldable_weight(convolution)
    if weight is None:
        out = convolution(x)
        return out, None if tokens is None else pointwise(x, tokens.weight.flatten(1), None)
    if tokens is None:
        return pointwise(x, weight, bias), None
    # Pooling and 1x1 convolution commute: h*K maps to pool instead of C.
    phi = tokens.weight.flatten(1)
    rows = torch.cat([weight, phi.to(weight.dtype)])
    if bias is not None:
        bias = F.pad(bias, (0, len(phi)))
    out, logits = pointwise(x, rows, bias).split([len(weight), len(phi)], dim=1)
    return out, logits


def _depthwise(x: Tensor, convolution: Map) -> Tensor:
    weight, bias = foldable_weight(convolution)
    if weight is None or not isinstance(convolution, nn.Conv2d) or convolution_obstacle(convolution):
        return convolution(x)
    return depthwise(x, convolution.weight, bias)


class _Matrices(NamedTuple):
    """What maps are multiplied by, and what is added: (B, O, C_i) each, (B, O) or None."""

    matrices: list[Tensor]
    maps: list[Tensor]
    shift: Tensor | None


def _attend(q: Tensor, k: Tensor, v: Tensor, logits: Tensor | None, terms: FusedTerms | CrossTerms) -> Tensor:
    heads = terms.temperature.shape[-3]
    tokens, g, mixing = terms.tokens, None, None
    if tokens is not None and logits is not None:
        g = token_maps(logits, tokens.stride).to(v.dtype)
        cells = -(-v.shape[-2] // tokens.stride) * -(-v.shape[-1] // tokens.stride)
        mixing = TokenMixing(tokens.gate, tokens.alpha, 1 / cells if tokens.scale == "sum" else 1.0, tokens.reinject)
        g = g.flatten(2)
    weight, bias = foldable_weight(terms.project)
    left = torch.eye(v.shape[1], device=v.device) if weight is None else weight
    matrix, token_matrix = fold(gram(q.flatten(2), k.flatten(2), g, heads), terms.temperature, left, mixing)
    matrices, maps, shift = _value(matrix, v, bias, terms.value)
    if g is not None and token_matrix is not None:
        matrices, maps = [*matrices, token_matrix], [*maps, g]
    out = mix(matrices, maps, shift).unflatten(2, v.shape[2:])
    return terms.project(out) if weight is None else out


def _value(matrix: Tensor, v: Tensor, bias: Tensor | None, value: ValueTerms | None) -> _Matrices:
    """V' as a sum of matrices times maps: V itself, and what its non-linear branch ends with."""
    shift = None if bias is None else bias.expand(len(v), -1)
    plain = _Matrices([matrix], [v.flatten(2)], shift)
    if value is None:
        return plain
    if value.branch is None:
        activated = F.gelu(v) if value.form == "gelu" else v.sigmoid()
        return _Matrices([matrix], [activated.flatten(2)], shift)
    branch = value.branch
    t = depthwise(
        pointwise(v, branch.in_weight.flatten(1), branch.in_bias),
        branch.depthwise_weight,
        branch.depthwise_bias,
        "gelu",
    ).flatten(2)
    composed, shift = compose(matrix, branch.out_weight.flatten(1), branch.out_bias, bias)
    if value.form == "replace":
        return _Matrices([composed], [t], shift)
    return _Matrices([matrix, composed], [*plain.maps, t], shift)
