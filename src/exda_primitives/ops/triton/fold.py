"""From Gram blocks to the matrices of an attention's output: the small step between two passes over the maps.

With the cosines' softmaxes, lam (the gate) and p (a row's softmax mass on tokens), ``E = [(1 - lam p) A_local, lam
A_token] + alpha mean(A_own)``, (c x (c+K)) a head; ``[M_v, M_g] = left blockdiag(E)``, where ``left`` is the projection
behind the attention, and with the last convolution W2, b2 of the non-linear value ``M_t = M_v W2`` and
``shift = M_v b2 + bias``.

One launch: E is computed tile by tile inside the product with ``left`` (one program a head and rows of ``left``; the
softmaxes are cheaper than a launch). M_t and the shift take another (:mod:`.compose`) or, of small matrices, none
(:mod:`.fold_branch`). Everything is float32 and exact, whatever TF32 does elsewhere. Backward, the small matrices are
computed again in plain PyTorch, under autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import InputError
from ..precision import EPS, accumulation_dtype, widen, without_autocast
from ..terms import Reinject
from .compose import compose, compose_reference
from .fold_kernels import fold_kernel
from .gram import Gram
from .launch import contiguous, device_obstacle, divide_up, dtype_obstacle, require
from .operator import differentiable, fake, operator
from .tiles import tile_side, wide

__all__ = ["TokenMixing", "compose", "compose_reference", "fold", "fold_reference"]


class TokenMixing(NamedTuple):
    """How tokens take part: lam and alpha, h elements each, of any dtype and shape.

    Attributes:
        gate: lam, how much of the softmax mass the local rows give to tokens.
        alpha: weight of the tokens' own rows.
        cells: what the tokens' use as values is divided by.
        reinject: how the own rows come back to the channels.
    """

    gate: Tensor
    alpha: Tensor
    cells: int = 1
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
    gate, alpha, cells, reinject = (None, None, 1, "mean") if tokens is None else tokens
    matrix, *rest = _fold(*gram, temperature, left, gate, alpha, cells, reinject == "channelwise")
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
        return matrix.flatten(2), None if tokens is None else token_matrix.flatten(2) / tokens.cells


def _divisor(squares: Tensor) -> Tensor:
    # The square root of 0 has no derivative, and its infinity survives a `where` behind it.
    return torch.where(squares == 0, 1, squares).sqrt().clamp_min(EPS)


class Blocks:
    """Gram blocks and parameters as the kernels take them, checked.

    Attributes:
        tensors: pointers of the kernels, in their order.
        strides: likewise.
        matrices: to be filled: (B, O, h*c) and, if there are tokens, (B, O, h*K).
        sizes: constants of the kernels.
    """

    def __init__(
        self,
        products: Tensor,
        q_squares: Tensor,
        k_squares: Tensor,
        temperature: Tensor,
        left: Tensor,
        gate: Tensor | None,
        alpha: Tensor | None,
        channelwise: bool,
    ) -> None:
        _check(products, (q_squares, k_squares), (temperature, gate, alpha), left, channelwise)
        self.batch, self.heads, m = products.shape[:3]
        self.rows, channels = left.shape
        c = channels // self.heads
        if products.stride()[2:] != (m, 1):
            products = products.contiguous()
        q_squares, k_squares, left = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_squares, k_squares, left))
        self.matrices = empty_matrices(products, left, gate)
        self.tensors = [
            products,
            q_squares,
            k_squares,
            *(contiguous(x) for x in (temperature, gate, alpha)),
            left,
            self.matrices[0],
            self.matrices[-1],
        ]
        self.strides = [*products.stride()[:2], *q_squares.stride()[:2], *k_squares.stride()[:2], left.stride(0)]
        columns = tile_side(m, 4096)
        self.sizes: dict[str, Any] = {
            "ROWS": self.rows,
            "C": c,
            "K": m - c,
            "CHANNELWISE": channelwise,
            "BLOCK_O": tile_side(self.rows, 32),
            "BLOCK_M": columns,
            "BLOCK_R": 16,
            "TYPE": wide(products.dtype),
            "num_warps": 4 if columns <= 128 else 8,
        }


def empty_matrices(products: Tensor, left: Tensor, gate: Tensor | None) -> list[Tensor]:
    """Uninitialised: (B, O, h*c) and, with a gate, (B, O, h*K)."""
    batch, heads, m = products.shape[:3]
    rows, channels = left.shape
    widths = [channels] if gate is None else [channels, heads * m - channels]
    return [torch.empty((batch, rows, width), device=products.device, dtype=products.dtype) for width in widths]


def _check(
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


@operator(
    "fold",
    "(Tensor products, Tensor q_squares, Tensor k_squares, Tensor temperature, Tensor left, Tensor? gate, "
    "Tensor? alpha, SymInt cells, bool channelwise) -> Tensor[]",
)
def _fold(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    blocks = Blocks(products, q_squares, k_squares, temperature, left, gate, alpha, channelwise)
    fold_kernel[(divide_up(blocks.rows, blocks.sizes["BLOCK_O"]), blocks.heads, blocks.batch)](
        *blocks.tensors, *blocks.strides, blocks.heads, 1 / cells, **blocks.sizes
    )
    return blocks.matrices


@fake(_fold)
def _(
    products: Tensor,
    q_squares: Tensor,
    k_squares: Tensor,
    temperature: Tensor,
    left: Tensor,
    gate: Tensor | None,
    alpha: Tensor | None,
    cells: int,
    channelwise: bool,
) -> list[Tensor]:
    return empty_matrices(products, left, gate)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.cells, ctx.channelwise = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    return gradients(lambda *inputs: again(inputs, ctx.cells, ctx.channelwise), ctx, grads)


def again(tensors: Sequence[Any], cells: int, channelwise: bool) -> tuple[Tensor, Tensor | None]:
    """:func:`fold_reference` of the operator's arguments, of which the first seven are tensors or None."""
    products, q_squares, k_squares, temperature, left, gate, alpha = tensors
    tokens = None if gate is None else TokenMixing(gate, alpha, cells, "channelwise" if channelwise else "mean")
    return fold_reference(Gram(products, q_squares, k_squares), temperature, left, tokens)


def gradients(
    function: Callable[..., Sequence[Tensor | None]], ctx: Any, grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Those that are needed of what ``ctx`` saved, by differentiating a function of it; None for all other inputs."""
    inputs = [None if x is None else x.detach() for x in ctx.saved_tensors]
    wanted = [
        x.requires_grad_() for x, need in zip(inputs, ctx.needs_input_grad, strict=False) if need and x is not None
    ]
    with torch.enable_grad():
        outputs = [x for x in function(*inputs) if x is not None]
    # Those that do not depend on what is wanted have no graph.
    pairs = [(x, grad) for x, grad in zip(outputs, grads, strict=True) if x.requires_grad]
    found = iter(torch.autograd.grad([x for x, _ in pairs], wanted, [grad for _, grad in pairs]))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad)


differentiable(_fold, _differentiate, _save)
