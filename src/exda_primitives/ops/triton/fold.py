"""From Gram blocks to the matrices of an attention's output: the small step between two passes over the maps.

With the cosines' softmaxes, lam (the gate) and p (a row's softmax mass on tokens), ``E = [(1 - lam p) A_local, lam
A_token] + alpha mean(A_own)``, (c x (c+K)) a head; ``[M_v, M_g] = left blockdiag(E)``, where ``left`` is the projection
behind the attention, and with the last convolution W2, b2 of the non-linear value ``M_t = M_v W2`` and
``shift = M_v b2 + bias``.

Two launches: E is computed tile by tile inside the product with ``left`` (one program a head and rows of ``left``; the
softmaxes are cheaper than a launch), then M_t and the shift, where there is a branch. Everything is float32 and exact,
whatever TF32 does elsewhere. Backward, the small matrices are computed again in plain PyTorch, under autograd.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...errors import InputError
from ..precision import EPS, accumulation_dtype, widen, without_autocast
from ..terms import Reinject
from .gram import Gram
from .launch import device_obstacle, divide_up, dtype_obstacle, on_device_of, require
from .tiles import dot, tile_side, wide

_EPS: tl.constexpr = tl.constexpr(EPS)


@triton.jit
def _divisors(squares: tl.tensor, i: tl.tensor, M: tl.constexpr, TYPE: tl.constexpr) -> tl.tensor:
    """What to divide rows by for a norm of 1, of their squared norms: see :func:`..precision.unit_divisor`."""
    # 0 for what is not there: Triton 3.2 does not compile another constant in a loop.
    norm = tl.sqrt(tl.load(squares + i, mask=i < M, other=0.0).to(TYPE))
    return tl.where(norm == 0, 1.0, tl.maximum(norm, _EPS))


@triton.jit
def _logit_rows(
    products: tl.tensor,
    q_squares: tl.tensor,
    columns: tl.tensor,
    temperature: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    M: tl.constexpr,
) -> tl.tensor:
    """Rows ``i`` of the logits, given what to divide columns ``j`` by."""
    at = products + i[:, None] * M + j[None, :]
    rows = tl.load(at, mask=(i < M)[:, None] & (j < M)[None, :], other=0.0)
    return temperature * (rows / _divisors(q_squares, i, M, rows.dtype)[:, None] / columns[None, :])


@triton.jit
def _softmax(logits: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Of rows over the columns ``inside``, 0 in all others; and the logarithm of each row's sum of exponentials."""
    logits = tl.where(inside[None, :], logits, float("-inf"))
    largest = tl.max(logits, 1)
    weights = tl.exp(logits - largest[:, None])
    total = tl.sum(weights, 1)
    return weights / total[:, None], largest + tl.log(total)


@triton.jit
def _fold_kernel(
    products: tl.tensor,
    q_squares: tl.tensor,
    k_squares: tl.tensor,
    temperature: tl.tensor,
    gate: tl.tensor,
    alpha: tl.tensor,
    left: tl.tensor,
    matrix: tl.tensor,
    token_matrix: tl.tensor,
    products_image: tl.tensor,
    products_head: tl.tensor,
    q_image: tl.tensor,
    q_head: tl.tensor,
    k_image: tl.tensor,
    k_head: tl.tensor,
    left_row: tl.tensor,
    heads: tl.tensor,
    scale: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    CHANNELWISE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    M: tl.constexpr = C + K
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    head = tl.program_id(1)
    image = tl.program_id(2)
    j = tl.arange(0, BLOCK_M)
    products += image * products_image + head * products_head
    q_squares += image * q_image + head * q_head
    columns = _divisors(k_squares + image * k_image + head * k_head, j, M, TYPE)
    temperature = tl.load(temperature + head).to(TYPE)
    if K > 0:
        gate = tl.load(gate + head).to(TYPE)
        alpha = tl.load(alpha + head).to(TYPE)
        if not CHANNELWISE:
            own = tl.zeros((1, BLOCK_M), TYPE)
            for first in range(C, M, BLOCK_R):
                i = first + tl.arange(0, BLOCK_R)
                weights, _ = _softmax(_logit_rows(products, q_squares, columns, temperature, i, j, M), j < M)
                own += tl.sum(tl.where((i < M)[:, None], weights, 0.0), 0)[None, :] / K

    acc = tl.zeros((BLOCK_O, BLOCK_M), TYPE)
    for first in range(0, C, BLOCK_R):
        i = first + tl.arange(0, BLOCK_R)
        logits = _logit_rows(products, q_squares, columns, temperature, i, j, M)
        mixing, own_sum = _softmax(logits, j < C)
        if K > 0:
            onto_tokens, token_sum = _softmax(logits, (j >= C) & (j < M))
            odds = tl.exp(-tl.abs(token_sum - own_sum))
            mass = (gate * tl.where(token_sum > own_sum, 1.0, odds) / (1 + odds))[:, None]
            mixing = (1 - mass) * mixing + mass * onto_tokens
            if CHANNELWISE:
                own_rows, _ = _softmax(_logit_rows(products, q_squares, columns, temperature, C + i, j, M), j < M)
                mixing += alpha * own_rows
            else:
                mixing += alpha * own
        weight = tl.load(
            left + o[:, None] * left_row + (head * C + i)[None, :],
            mask=(o < ROWS)[:, None] & (i < C)[None, :],
            other=0.0,
        )
        acc = dot(weight.to(TYPE), mixing, acc, "ieee")

    rows = ((image * ROWS + o) * heads + head)[:, None]
    tl.store(matrix + rows * C + j[None, :], acc, mask=(o < ROWS)[:, None] & (j < C)[None, :])
    if K > 0:
        tokens = (o < ROWS)[:, None] & (j >= C)[None, :] & (j < M)[None, :]
        tl.store(token_matrix + rows * K + (j - C)[None, :], acc * scale, mask=tokens)


@triton.jit
def _compose_kernel(
    matrix: tl.tensor,
    weight: tl.tensor,
    vector: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    shift: tl.tensor,
    weight_row: tl.tensor,
    ROWS: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
) -> None:
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.program_id(2) * ROWS + o
    acc = tl.zeros((BLOCK, BLOCK), TYPE)
    total = tl.zeros((BLOCK,), TYPE)
    for first in range(0, C, BLOCK):
        i = first + tl.arange(0, BLOCK)
        a = tl.load(matrix + rows[:, None] * C + i[None, :], mask=(o < ROWS)[:, None] & (i < C)[None, :], other=0.0)
        b = tl.load(
            weight + i[:, None] * weight_row + j[None, :], mask=(i < C)[:, None] & (j < COLUMNS)[None, :], other=0.0
        )
        acc = dot(a, b.to(TYPE), acc, "ieee")
        total += tl.sum(a * tl.load(vector + i, mask=i < C, other=0.0).to(TYPE)[None, :], 1)
    if BIAS:
        total += tl.load(bias + o, mask=o < ROWS, other=0.0).to(TYPE)
    tl.store(out + rows[:, None] * COLUMNS + j[None, :], acc, mask=(o < ROWS)[:, None] & (j < COLUMNS)[None, :])
    tl.store(shift + rows, total, mask=(o < ROWS) & (tl.program_id(1) + 0 * o == 0))


class TokenMixing(NamedTuple):
    """How tokens take part: lam and alpha, h elements each, of any dtype and shape.

    Attributes:
        gate: lam, how much of the softmax mass the local rows give to tokens.
        alpha: weight of the tokens' own rows.
        scale: what the tokens' use as values is multiplied by.
        reinject: how the own rows come back to the channels.
    """

    gate: Tensor
    alpha: Tensor
    scale: float = 1.0
    reinject: Reinject = "mean"


def fold(
    gram: Gram, temperature: Tensor, left: Tensor, tokens: TokenMixing | None = None
) -> tuple[Tensor, Tensor | None]:
    """``left blockdiag(E)``: the matrices onto the value channels and onto the tokens; differentiable, one launch.

    Args:
        gram: of h heads, c channels and K tokens each, float32.
        temperature: h elements, of any dtype and shape.
        left: (O, h*c), of any dtype.
        tokens: None if and only if K = 0.

    Returns:
        (B, O, h*c) and (B, O, h*K), or None for no tokens; float32.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    gate, alpha, scale, reinject = (None, None, 1.0, "mean") if tokens is None else tokens
    matrix, *rest = _fold(*gram, temperature, left, gate, alpha, scale, reinject == "channelwise")
    return matrix, rest[0] if rest else None


def fold_reference(
    gram: Gram, temperature: Tensor, left: Tensor, tokens: TokenMixing | None = None
) -> tuple[Tensor, Tensor | None]:
    """:func:`fold` in plain PyTorch; any dtype, device and layout."""
    products, q_squares, k_squares = gram
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
        blocks = widen(left).unflatten(1, (heads, c)).transpose(0, 1).to(mixing.dtype) @ mixing
        matrix, token_matrix = blocks.transpose(1, 2).split([c, m - c], -1)
        return matrix.flatten(2), None if tokens is None else tokens.scale * token_matrix.flatten(2)


def compose(matrix: Tensor, weight: Tensor, vector: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``matrix weight`` and ``matrix vector + bias``: a 1x1 convolution folded into what follows it; one launch.

    Differentiable.

    Args:
        matrix: (B, O, C), float32.
        weight: of the convolution, (C, J), of any dtype.
        vector: its bias, (C,), of any dtype.
        bias: (O,), of any dtype, or None.

    Returns:
        (B, O, J) and (B, O), float32.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    product, shift = _compose(matrix, weight, vector, bias)
    return product, shift


def compose_reference(
    matrix: Tensor, weight: Tensor, vector: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:func:`compose` in plain PyTorch; any dtype, device and layout."""
    with without_autocast(matrix):
        shift = matrix @ vector.to(matrix.dtype)
        return matrix @ weight.to(matrix.dtype), shift if bias is None else shift + bias.to(matrix.dtype)


def _divisor(squares: Tensor) -> Tensor:
    # The square root of 0 has no derivative, and its infinity survives a `where` behind it.
    return torch.where(squares == 0, 1, squares).sqrt().clamp_min(EPS)


def _check_fold(
    products: Tensor, squares: tuple[Tensor, Tensor], terms: tuple[Tensor | None, ...], left: Tensor, channelwise: bool
) -> None:
    require("fold", device_obstacle(products) or dtype_obstacle(products))
    heads, m = products.shape[1:3]
    tokens = m - left.shape[1] // heads
    if products.dtype is not accumulation_dtype(products.dtype):
        raise InputError(f"fold: the Gram blocks are {products.dtype}; expected float32")
    if left.ndim != 2 or left.shape[1] % heads or tokens < 0 or left.numel() == 0 or products.numel() == 0:
        raise InputError(
            f"fold: left is {tuple(left.shape)} for {heads} heads of {m} rows; expected (O, h*c), c at most {m}, no "
            "dimension 0"
        )
    if products.shape[3] != m or any(x.shape != products.shape[:3] for x in squares):
        raise InputError(
            f"fold: products are {tuple(products.shape)}, squared norms {[tuple(x.shape) for x in squares]}; expected "
            "(B, h, m, m) and (B, h, m)"
        )
    if any((x is None) != (tokens == 0) for x in terms[1:]) or any(x is not None and x.numel() != heads for x in terms):
        raise InputError(
            f"fold: temperature, gate and alpha are {[None if x is None else tuple(x.shape) for x in terms]} for "
            f"{heads} heads of {tokens} tokens; expected {heads} elements each, gate and alpha None without tokens"
        )
    if channelwise and tokens != m - tokens:
        raise InputError(f"fold: {tokens} tokens re-injected channelwise; expected as many as channels, {m - tokens}")


@torch.library.custom_op(
    "exda::fold",
    mutates_args=(),
    schema="(Tensor products, Tensor q_squares, Tensor k_squares, Tensor temperature, Tensor left, Tensor? gate, "
    "Tensor? alpha, float scale, bool channelwise) -> Tensor[]",
)
def _fold(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    scale: float,
    channelwise: bool,
) -> list[Tensor]:
    _check_fold(products, (q_squares, k_squares), (temperature, gate, alpha), left, channelwise)
    batch, heads, m = products.shape[:3]
    rows, channels = left.shape
    c = channels // heads
    if products.stride()[2:] != (m, 1):
        products = products.contiguous()
    q_squares, k_squares, left = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_squares, k_squares, left))
    temperature = temperature.contiguous()
    gate, alpha = (None if x is None else x.contiguous() for x in (gate, alpha))
    out = [torch.empty((batch, rows, channels), device=products.device, dtype=products.dtype)]
    if m > c:
        out.append(torch.empty((batch, rows, heads * (m - c)), device=products.device, dtype=products.dtype))
    block, columns = tile_side(rows, 32), tile_side(m, 4096)
    with on_device_of(products):
        _fold_kernel[(divide_up(rows, block), heads, batch)](
            products,
            q_squares,
            k_squares,
            temperature,
            gate,
            alpha,
            left,
            out[0],
            out[-1],
            *products.stride()[:2],
            *q_squares.stride()[:2],
            *k_squares.stride()[:2],
            left.stride(0),
            heads,
            scale,
            ROWS=rows,
            C=c,
            K=m - c,
            CHANNELWISE=channelwise,
            BLOCK_O=block,
            BLOCK_M=columns,
            BLOCK_R=16,
            TYPE=wide(products.dtype),
            num_warps=4 if columns <= 128 else 8,
        )
    return out


@_fold.register_fake
def _(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    scale: float,
    channelwise: bool,
) -> list[Tensor]:
    batch, heads, m = products.shape[:3]
    rows, channels = left.shape
    widths = [channels] if gate is None else [channels, heads * m - channels]
    return [torch.empty((batch, rows, width), device=products.device, dtype=products.dtype) for width in widths]


def _save_fold(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.scale, ctx.channelwise = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_fold(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    inputs: list[Any] = [None if x is None else x.detach() for x in ctx.saved_tensors]
    leaves = [x.requires_grad_() for x, wanted in zip(inputs, ctx.needs_input_grad, strict=False) if wanted]
    products, q_squares, k_squares, temperature, left, gate, alpha = inputs
    tokens = None
    if gate is not None:
        tokens = TokenMixing(gate, alpha, ctx.scale, "channelwise" if ctx.channelwise else "mean")
    with torch.enable_grad():
        matrices = fold_reference(Gram(products, q_squares, k_squares), temperature, left, tokens)
    found = iter(torch.autograd.grad([x for x in matrices if x is not None], leaves, grads))
    return tuple(next(found) if wanted else None for wanted in ctx.needs_input_grad)


_fold.register_autograd(_differentiate_fold, setup_context=_save_fold)


@torch.library.custom_op("exda::compose", mutates_args=())
def _compose(matrix: Tensor, weight: Tensor, vector: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    require("compose", device_obstacle(matrix) or dtype_obstacle(matrix))
    batch, rows, channels = matrix.shape
    columns = weight.shape[1]
    expected = (channels, columns), (channels,), None if bias is None else (rows,)
    if (weight.shape, vector.shape, None if bias is None else bias.shape) != expected:
        raise InputError(
            f"compose: weight, vector and bias are {tuple(weight.shape)}, {tuple(vector.shape)} and "
            f"{None if bias is None else tuple(bias.shape)} for matrices {tuple(matrix.shape)}; expected (C, J), (C,) "
            "and (O,) or None for (B, O, C)"
        )
    matrix, weight, vector = matrix.contiguous(), weight.contiguous(), vector.contiguous()
    out = torch.empty((batch, rows, columns), device=matrix.device, dtype=matrix.dtype)
    shift = torch.empty((batch, rows), device=matrix.device, dtype=matrix.dtype)
    block = 32
    with on_device_of(matrix):
        _compose_kernel[(divide_up(rows, block), divide_up(columns, block), batch)](
            matrix,
            weight,
            vector,
            None if bias is None else bias.contiguous(),
            out,
            shift,
            columns,
            ROWS=rows,
            C=channels,
            COLUMNS=columns,
            BIAS=bias is not None,
            BLOCK=block,
            TYPE=wide(matrix.dtype),
        )
    return out, shift


@_compose.register_fake
def _(matrix: Tensor, weight: Tensor, vector: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return matrix.new_empty((*matrix.shape[:2], weight.shape[1])), matrix.new_empty(matrix.shape[:2])


def _save_compose(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_compose(ctx: Any, grad: Tensor, shift_grad: Tensor) -> tuple[Tensor | None, ...]:
    matrix, weight, vector, bias = ctx.saved_tensors
    with without_autocast(matrix):
        d_matrix = grad @ weight.to(grad.dtype).T + shift_grad[..., None] * vector.to(grad.dtype)
        d_weight = (matrix.transpose(1, 2) @ grad).sum(0).to(weight.dtype)
        d_vector = (matrix * shift_grad[..., None]).sum((0, 1)).to(vector.dtype)
    return d_matrix, d_weight, d_vector, None if bias is None else shift_grad.sum(0).to(bias.dtype)


_compose.register_autograd(_differentiate_compose, setup_context=_save_compose)
