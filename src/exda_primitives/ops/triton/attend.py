"""An attention whose value has a non-linear branch, from its projections to its output, as one operator.

``out = M_v v + M_t t + M_g g + shift + residual``, ``t = GELU(DW(W1 v + b1))``, the matrices from the Gram blocks of q,
k and g: passes for the Gram blocks, the matrices, the branch (a product, then ``depthwise``) and the output (``mix``).

Backward computes ``u = W1 v`` and t again, by a product and a depthwise pass, instead of keeping these two maps. As one
operator, it writes dq, dk and dv where they belong in the gradient of the map that they are channels of: operators of
their own for the Gram blocks and for the output would each return a map, and joining these would read and write all
three once more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast
from ..terms import Branch
from . import depthwise_backward, fold_backward, gram
from .compose import compose_gradients
from .depthwise import compute as depthwise
from .depthwise import unsupported_reason
from .fold import TokenMixing
from .fold_branch import Matrices, fold_branch
from .launch import contiguous, require
from .mix import compute as mix
from .mix import (
    fill_transposed,
    map_gradients,
    packed_matrix_gradients,
    packed_weight_gradients,
    unpacked_matrices,
)
from .norm_pointwise import pointwise
from .operator import differentiable, differentiable_no_more, fake, operator
from .packed import parameter_gradients


def parts(maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q, k and v, views of the channels of the maps ``[qkv]``, (B, 3C, ...), or ``[q, kv]``, C and 2C."""
    if len(maps) == 1:
        q, k, v = maps[0].chunk(3, dim=1)
        return q, k, v
    q, kv = maps
    k, v = kv.chunk(2, dim=1)
    return q, k, v


def attend(
    maps: list[Tensor],
    g: Tensor | None,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    branch: Branch,
    adds: bool,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Computes the attention's output, (B, O, H, W), contiguous; differentiable once.

    Args:
        maps: q, k and v, as ``parts`` takes them, float32, float16 or bfloat16.
        g: tokens, (B, h*K, H, W) of the maps' dtype, or None.
        temperature: h elements, of any dtype and shape, as all parameters here.
        left: the projection after the attention, (O, C).
        tokens: how the tokens take part; None if and only if ``g`` is.
        branch: the non-linear value's convolutions.
        adds: whether the branch is added to the value, ``V + g(V)``; if not, it replaces it.
        bias: added after ``left``, (O,), or None.
        residual: (B, O, H, W) of the maps' dtype, or None.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    v = parts(maps)[2]
    require("exda::attend", unsupported_reason(v, branch.depthwise_weight, branch.depthwise_bias, "gelu"))
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    parameters = temperature, left, gate, alpha, *branch, bias
    out: Tensor = _attend(maps, g, *parameters, residual, cells, reinject == "channelwise", adds)[0]
    return out


def compute(
    maps: list[Tensor],
    g: Tensor | None,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    branch: Branch,
    adds: bool,
    bias: Tensor | None,
    residual: Tensor | None,
    valid: int | None = None,
) -> tuple[Tensor, Tensor, Matrices]:
    """Computes ``attend`` inside of an operator; returns the Gram blocks, (B, h, m+2, m), and the matrices as well.

    If ``valid`` is given, the maps are that wide and padded to longer rows (``pitch``).
    """
    q, k, v = parts(maps)
    rows = gram.compute(q.flatten(2), k.flatten(2), None if g is None else g.flatten(2), temperature.numel())
    found = fold_branch(rows, temperature, left, tokens, branch.out_weight.flatten(1), branch.out_bias, bias)
    # V' = V + W2 t + b2: the matrices take W2 and b2, and V' is never computed.
    t = depthwise(
        _first_product(v, branch.in_weight),
        branch.depthwise_weight,
        branch.depthwise_bias,
        "gelu",
        branch.in_bias,
        valid,
    )
    matrices = _present(found.value if adds else None, found.branch, found.tokens)
    shifted = None if residual is None else residual.flatten(2)
    out = mix(matrices, _flat(v if adds else None, t, g), found.shift, shifted)
    return out.unflatten(2, v.shape[2:]), rows, found


def _first_product(v: Tensor, weight: Tensor) -> Tensor:
    """Returns ``W1 v``; the depthwise convolution adds the bias as it reads."""
    # One pass for both convolutions does not pay. The depthwise one needs its neighbours' products: together they are
    # a dense 3x3 convolution, 9 C^2 multiplications per pixel. At 1024x1024 and C = 96 these are 0.17 TFLOP, 0.35 ms at
    # half of an H100's peak in bfloat16; not writing and reading the map between them would save 0.13 ms at 3 TB/s.
    return pointwise(v, weight.flatten(1), None)


def _present(*tensors: Tensor | None) -> list[Tensor]:
    return [x for x in tensors if x is not None]


def _flat(*maps: Tensor | None) -> list[Tensor]:
    """Returns the maps that are there as (B, C, N)."""
    return [x.flatten(2) for x in _present(*maps)]


_PARAMETERS = (
    "Tensor temperature, Tensor left, Tensor? gate, Tensor? alpha, Tensor in_weight, Tensor in_bias, "
    "Tensor depthwise_weight, Tensor depthwise_bias, Tensor out_weight, Tensor out_bias"
)


@operator(
    "attend",
    f"(Tensor[] maps, Tensor? g, {_PARAMETERS}, Tensor? bias, Tensor? residual, SymInt cells, bool channelwise, "
    "bool adds) -> Tensor[]",
)
def _attend(
    maps: list[Tensor],
    g: Tensor | None,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    in_weight: Tensor,
    in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    cells: int,
    channelwise: bool,
    adds: bool,
) -> list[Tensor]:
    """Returns the output and what backward reads: Gram blocks, M_v, M_t and, with tokens, M_g."""
    branch = Branch(in_weight, in_bias, depthwise_weight, depthwise_bias, out_weight, out_bias)
    tokens = None
    if gate is not None and alpha is not None:
        tokens = TokenMixing(gate, alpha, cells, "channelwise" if channelwise else "mean")
    out, rows, found = compute(maps, g, temperature, left, tokens, branch, adds, bias, residual)
    return [out, rows, *_present(found.value, found.branch, found.tokens)]


@fake(_attend)
def _(
    maps: list[Tensor],
    g: Tensor | None,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    in_weight: Tensor,
    in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    cells: int,
    channelwise: bool,
    adds: bool,
) -> list[Tensor]:
    v, heads = parts(maps)[2], temperature.numel()
    rows, channels = left.shape
    tokens = 0 if g is None else g.shape[1]
    m = (channels + tokens) // heads
    small = [(heads, m + 2, m), (rows, channels), (rows, out_weight.shape[1]), *([(rows, tokens)] if tokens else [])]
    wide = accumulation_dtype(v.dtype)
    batch = v.shape[0]
    out = torch.empty((batch, rows, *v.shape[2:]), dtype=v.dtype, device=v.device)
    return [out, *(torch.empty((batch, *size), dtype=wide, device=v.device) for size in small)]


@operator(
    "attend_backward",
    f"(Tensor grad, Tensor[] maps, Tensor? g, Tensor rows, Tensor[] matrices, {_PARAMETERS}, SymInt cells, "
    "bool channelwise, bool adds, bool[] needed) -> Tensor[]",
)
def _attend_backward(
    grad: Tensor,
    maps: list[Tensor],
    g: Tensor | None,
    rows: Tensor,
    matrices: list[Tensor],
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    in_weight: Tensor,
    in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    cells: int,
    channelwise: bool,
    adds: bool,
    needed: list[bool],
) -> list[Tensor]:
    """Returns the gradients of the maps and of g, and vectors: of parameters, one after the other.

    The vectors are of left, temperature, gate and alpha; of W2 and b2; of the bias; of DW's weight and bias; of W1 and
    b1. What is not needed is empty. ``grad`` is that of the output, ``rows`` are the Gram blocks, ``matrices`` M_v, M_t
    and, with tokens, M_g; ``needed`` is whether gradients are needed of the maps, of g, of what the matrices are made
    of, of the bias, of DW and of W1. The other arguments are those of ``attend``'s operator.
    """
    need_maps, need_tokens, need_small, need_bias, need_depthwise, need_first = needed
    q, k, v = parts(maps)
    out = grad.flatten(2)
    onto_value, onto_branch, *onto_tokens = matrices
    # The vectors that are needed, by their place from the end.
    vectors: dict[int, Tensor] = {}
    u = _first_product(v, in_weight)
    if need_small or need_bias or need_maps or need_tokens:
        t = depthwise(u, depthwise_weight, depthwise_bias, "gelu", in_bias)
        used = _flat(v if adds else None, t, g)
        # dM_i = D X_i^T and dshift = D 1
        packed = packed_matrix_gradients(out, used)
        # As the other maps below, deleted once it is not needed: its memory is used again.
        del t, used
        widths = [v.shape[1], *(m.shape[2] for m in matrices[1:])]
        of_matrices, of_shift = unpacked_matrices(packed, out.shape[1], widths if adds else widths[1:])
        direct = of_matrices.pop(0) if adds else None
        of_branch, *of_tokens = of_matrices
        # M_v gets its own gradient and, through M_t and the shift, one more.
        d_matrix, of_last = compose_gradients(of_branch, of_shift, direct, onto_value, out_weight.flatten(1), out_bias)
        d_rows, of_fold = fold_backward.compute(
            d_matrix, of_tokens[0] if of_tokens else None, rows, temperature, left, gate, alpha, cells, channelwise
        )
        if need_small:
            vectors |= {-5: of_fold, -4: of_last}
        if need_bias:
            vectors[-3] = of_shift.sum(0)
    du, more = u, None
    if need_maps or need_first or need_depthwise or need_tokens:
        # dX_i = M_i^T D for t and g. Of the maps only sizes count: u stands in for t, which is as large.
        dt, *of_g = map_gradients(out, [onto_branch, *onto_tokens], _flat(u, g))
        more = contiguous(of_g[0]) if of_g else None
        dt = dt.unflatten(2, v.shape[2:])
        parameters = depthwise_weight, depthwise_bias, "gelu"
        du, vectors[-2] = depthwise_backward.compute(
            dt, u, *parameters, need_maps or need_first, need_depthwise, in_bias
        )
        del dt
        if need_first:
            vectors[-1] = packed_weight_gradients(v.flatten(2), [du.flatten(2)])
    del u
    given = temperature, left, gate, alpha, in_weight, in_bias, depthwise_weight, depthwise_bias, out_weight, out_bias
    found = _empty_gradients(grad, maps, g, rows, matrices, *given, cells, channelwise, adds, needed)
    for place, vector in vectors.items():
        found[place] = vector
    d_maps, dg = found[: len(maps)], found[len(maps)]
    if need_maps:
        # dv = W1^T du + M_v^T D; of a branch that replaces the value, the first term alone.
        back, upstream = [in_weight.flatten(1)[None]], [du.flatten(2)]
        if adds:
            back, upstream = [*back, onto_value], [*upstream, out]
        fill_transposed(back, upstream, parts(d_maps)[2].flatten(2))
    if need_maps or need_tokens:
        dq, dk, _ = parts(d_maps if need_maps else [torch.empty_like(x) for x in maps])
        into = dq.flatten(2), dk.flatten(2), None if g is None else dg.flatten(2)
        tokens = None if g is None else g.flatten(2)
        gram.gradients(d_rows, q.flatten(2), k.flatten(2), tokens, temperature.numel(), into, more)
    return found


@fake(_attend_backward)
def _empty_gradients(
    grad: Tensor,
    maps: list[Tensor],
    g: Tensor | None,
    rows: Tensor,
    matrices: list[Tensor],
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    in_weight: Tensor,
    in_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    cells: int,
    channelwise: bool,
    adds: bool,
    needed: list[bool],
) -> list[Tensor]:
    need_maps, need_tokens, need_small, need_bias, need_depthwise, need_first = needed
    nothing = (0,)

    def empty(size: Any, need: bool, dtype: torch.dtype) -> Tensor:
        return torch.empty(size if need else nothing, dtype=dtype, device=grad.device)

    of_maps = [empty(x.shape, need_maps, x.dtype) for x in maps]
    of_tokens = empty(nothing if g is None else g.shape, g is not None and (need_maps or need_tokens), grad.dtype)
    sizes = (
        (left.numel() + 3 * temperature.numel(), need_small),
        (out_weight.numel() + out_bias.numel(), need_small),
        (len(left), need_bias),
        (depthwise_weight.numel() + depthwise_bias.numel(), need_depthwise),
        (in_weight.numel() + in_bias.numel(), need_first),
    )
    return [*of_maps, of_tokens, *(empty((size,), need, rows.dtype) for size, need in sizes)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    maps, g, *parameters, bias, _, cells, channelwise, adds = inputs
    ctx.options, ctx.maps, ctx.bias_dtype = (cells, channelwise, adds), len(maps), None if bias is None else bias.dtype
    ctx.mark_non_differentiable(*output[1:])
    # Nobody differentiates these: without this, autograd would make zeros as their gradients.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*maps, g, *parameters, *output[1:])


def _differentiate(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    grad = grads[0]
    of_maps, *rest = ctx.needs_input_grad
    if grad is None:
        return [None] * ctx.maps, *[None] * len(rest)
    saved = list(ctx.saved_tensors)
    maps, (g, *saved) = saved[: ctx.maps], saved[ctx.maps :]
    parameters, (rows, *matrices) = saved[:10], saved[10:]
    temperature, left, gate, alpha, *branch = parameters
    # In the order of the operator's arguments: g, the ten parameters, the bias, the residual.
    needed = [
        any(of_maps),
        rest[0],
        any(rest[1:5]) or any(rest[9:11]),
        rest[11],
        any(rest[7:9]),
        any(rest[5:7]),
    ]
    with without_autocast(grad):
        found = torch.ops.exda.attend_backward(grad, maps, g, rows, matrices, *parameters, *ctx.options, needed)
    *d_maps, dg, of_fold, of_last, of_bias, of_depthwise, of_first = found
    gradients: list[Tensor | None] = [dg, *[None] * 10]
    if needed[2]:
        d_left, d_temperature, d_gate, d_alpha = parameter_gradients(of_fold, [left, temperature, gate, alpha])
        gradients[1:5] = d_temperature, d_left, d_gate, d_alpha
        gradients[9:11] = parameter_gradients(of_last, branch[4:])
    if needed[5]:
        gradients[5:7] = parameter_gradients(of_first, branch[:2])
    if needed[4]:
        gradients[7:9] = parameter_gradients(of_depthwise, branch[2:4])
    d_bias = of_bias.to(ctx.bias_dtype) if needed[3] else None
    # The residual is added as it is: its gradient is the output's.
    each = [*gradients, d_bias, grad, None, None, None]
    kept = tuple(gradient if need else None for gradient, need in zip(each, rest, strict=True))
    return [x if need else None for x, need in zip(d_maps, of_maps, strict=True)], *kept


differentiable(_attend, _differentiate, _save)
differentiable_no_more(_attend_backward)
