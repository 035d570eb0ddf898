"""ExDA channel attention in few passes over the maps: the algebra of ``ops.torch``, on Triton kernels.

The passes of one attention:

1. one product to q, k, v and the tokens' logits, then one depthwise pass (``projection``);
2. pooling, softmax and upsampling of the logits to token maps G (``tokens``);
3. one pass for all Gram blocks and norms (``gram``), and from these the small matrices (``fold``, ``fold_branch``);
4. for the value, W1 and one depthwise pass with GELU, ``t = GELU(DW(W1 V))`` (``attend``, which has 3 to 5);
5. one product that reads V, t and G, ``out = M_v V + M_t t + M_g G + shift`` (``mix``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bare import is_bare, is_depthwise, is_pointwise
from ..precision import product_dtype, without_autocast
from ..terms import CrossTerms, NormTerms, PackedQKVTerms, Projection, TokenTerms, ValueTerms, called_primitive
from ..torch.fold import foldable_weight
from .attend import attend, parts
from .attend import compute as attend_inside
from .depthwise import depthwise
from .fold import TokenMixing, fold
from .fold_arguments import MOST_HEAD_ROWS
from .gram import gram
from .launch import device_unsupported_reason, dtype_unsupported_reason
from .mix import mix
from .norm import layer_norm
from .norm_pointwise import pointwise
from .projection import projected
from .tokens import token_maps
from .tokens import unsupported_reason as tokens_unsupported_reason


def mdta_unsupported_reason(x: Tensor, terms: PackedQKVTerms) -> str | None:
    """Returns why the kernels cannot compute ``mdta``; None if they can."""
    return _unsupported_reason(x, terms, terms.qkv)


def cross_unsupported_reason(x: Tensor, y: Tensor, terms: CrossTerms) -> str | None:
    """Returns why the kernels cannot compute ``cross``; None if they can."""
    if x.dtype is not y.dtype:
        return f"the two maps have to be of one dtype; they are {x.dtype} and {y.dtype}"
    return _unsupported_reason(y, terms, terms.q, terms.kv)


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Computes Restormer's channel attention, (B, C, H, W) -> (B, C, H, W); under autocast in its dtype."""
    x = x.to(product_dtype(x))
    with without_autocast(x):
        return attention(x, terms, None, None)


def attention(x: Tensor, terms: PackedQKVTerms, norm: NormTerms | None, residual: Tensor | None) -> Tensor:
    """Computes ``mdta(norm(x)) + residual`` in the dtype of ``x``, (B, C, H, W) -> (B, C, H, W)."""
    qkv, logits = _projected(x, terms.qkv, terms.tokens, norm)
    return _attend([qkv], logits, terms, residual)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Computes cross attention, (B, C, H, W) twice -> (B, C, H, W): q from ``x``; k, v and the tokens from ``y``."""
    x, y = x.to(product_dtype(x)), y.to(product_dtype(y))
    with without_autocast(x):
        q, _ = _projected(x, terms.q, None, None)
        kv, logits = _projected(y, terms.kv, terms.tokens, None)
        return _attend([q, kv], logits, terms, None)


def _unsupported_reason(x: Tensor, terms: PackedQKVTerms | CrossTerms, *projections: Projection) -> str | None:
    if terms.value is not None and terms.value.position == "after":
        return "the value comes after the aggregation, for which there are no kernels"
    if called := called_primitive(terms):
        return called
    dtype, maps = product_dtype(x), [each for projection in projections for each in projection]
    # Only a bare layer's weight is read; any other module is called.
    bare = [each for each in (*maps, terms.project) if is_bare(each)]
    found = {each.weight.dtype for each in bare}
    if torch.is_autocast_enabled(x.device.type):
        # The kernels run outside autocast, which would not cast the input of a module that they call.
        if len(bare) <= len(maps):
            return "under autocast, a projection is hooked, wrapped, parametrised or of a type that has to be called"
    elif found - {x.dtype}:
        return f"the map is {x.dtype}, the projections are {', '.join(map(str, found))}"
    heads = terms.temperature.shape[-3]
    tokens = 0 if terms.tokens is None or terms.tokens.weight is None else len(terms.tokens.weight)
    if (rows := (x.shape[1] + tokens) // heads) > MOST_HEAD_ROWS:
        return f"a head has {rows} channels and tokens, more than {MOST_HEAD_ROWS}"
    reason = device_unsupported_reason(x) or dtype_unsupported_reason(x.new_empty(0, dtype=dtype))
    return reason or (None if terms.tokens is None else tokens_unsupported_reason(x, terms.tokens.stride))


def _projected(
    x: Tensor, projection: Projection, tokens: TokenTerms | None, norm: NormTerms | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the projection of ``norm(x)`` and the tokens' logits ``Phi norm(x)``, (B, h*K, H, W), or None."""
    first, second = projection
    # Pooling and 1x1 convolution commute: Phi's rows join the projection, and h*K maps are pooled instead of C.
    phi = None if tokens is None or tokens.weight is None else tokens.weight.flatten(1)
    if is_pointwise(first) and is_depthwise(second):
        return projected(x, norm, first.weight.flatten(1), first.bias, phi, second.weight, second.bias)
    x = x if norm is None else layer_norm(x, *norm)
    y = pointwise(x, first.weight.flatten(1), first.bias) if is_pointwise(first) else first(x)
    z = depthwise(y, second.weight, second.bias) if is_depthwise(second) else second(y)
    return z, None if phi is None else pointwise(x, phi, None)


def _attend(
    maps: list[Tensor], logits: Tensor | None, terms: PackedQKVTerms | CrossTerms, residual: Tensor | None
) -> Tensor:
    """Returns the attention's output after its projection, which is folded in where it is a bare 1x1 convolution."""
    weight, bias = foldable_weight(terms)
    if weight is not None:
        return attention_output(maps, logits, terms.temperature, terms.value, terms.tokens, weight, bias, residual)
    out = attention_output(maps, logits, terms.temperature, terms.value, terms.tokens, None, None, None)
    out = terms.project(out)
    return out if residual is None else out + residual


def attention_output(
    maps: list[Tensor],
    logits: Tensor | None,
    temperature: Tensor,
    value: ValueTerms | None,
    tokens: TokenTerms | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    valid: int | None = None,
) -> Tensor:
    """Returns the attention's output, (B, C, H, W), after the output projection if ``weight`` is given.

    Args:
        maps: q, k and v, (B, C, H, W) each, as ``attend.parts`` takes them; v before the non-linear value.
        logits: the tokens', ``Phi norm(x)``, (B, h*K, H, W), or None.
        temperature: (..., h, 1, 1).
        value: the non-linear value, or None.
        tokens: None if ``logits`` is.
        weight: the output projection's, (C, C), or None where that is called afterwards.
        bias: the output projection's, (C,), or None.
        residual: added to the output, (B, C, H, W), or None.
        valid: the width of the maps where their rows are padded to a longer W (``pitch``); nothing is differentiable
            then.
    """
    q, k, v = parts(maps)
    g, mixing = None, None
    if tokens is not None and logits is not None:
        g = token_maps(logits[..., :valid], tokens.stride)
        # ceil(H/s) * ceil(W/s) pooled pixels, whose G has mean 1: the scale "sum" divides by their number.
        cells = -(-g.shape[-2] // tokens.stride) * -(-g.shape[-1] // tokens.stride)
        mixing = TokenMixing(tokens.gate, tokens.alpha, cells if tokens.scale == "sum" else 1, tokens.reinject)
    if g is not None and valid is not None:
        # Zeros beyond the true width, which add nothing to Gram blocks and norms.
        g = F.pad(g, (0, v.shape[-1] - valid))
    # W_out; the identity where the projection is called afterwards.
    left = torch.eye(v.shape[1], device=v.device) if weight is None else weight
    if value is not None and value.branch is not None:
        options = maps, g, temperature, left, mixing, value.branch, value.form == "residual", bias, residual
        # With ``valid``, inside an operator already: computed without a further one.
        return attend(*options) if valid is None else attend_inside(*options, valid)[0]
    rows = gram(q.flatten(2), k.flatten(2), None if g is None else g.flatten(2), temperature.shape[-3])
    matrix, token_matrix = fold(rows, temperature, left, mixing)
    if value is not None and value.form in ("gelu", "sigmoid"):
        v = F.gelu(v) if value.form == "gelu" else v.sigmoid()
    matrices, maps = [matrix], [v.flatten(2)]
    if g is not None and token_matrix is not None:
        matrices, maps = [matrix, token_matrix], [*maps, g.flatten(2)]
    shift = None if bias is None else bias.expand(v.shape[0], -1)
    out = mix(matrices, maps, shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, v.shape[2:])
