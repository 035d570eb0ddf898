"""Checks Gram blocks and the parameters that fold them, and lays them out for the kernels of ``fold``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..precision import accumulation_dtype
from .launch import contiguous, device_unsupported_reason, dtype_unsupported_reason, require
from .tiles import accumulation_type, tile_side

MOST_HEAD_ROWS = 4096
"""The most channels and tokens of one head: a softmax takes its whole row, which has to fit into one tile."""


class FoldArguments:
    """Gram blocks and parameters, checked, as arguments of the kernels.

    Attributes:
        batch: number of images, B.
        heads: number of heads, h.
        rows: rows of ``left``, O.
        tensors: the blocks and parameters, in the kernels' order.
        strides: in elements: of images and heads in the products and both squared norms, then of rows in ``left``.
        constants: compile-time constants and options of the kernels.
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
        # ``gram`` returns views of one (B, h, m+2, m) buffer: they are read in place, by the buffer's strides.
        if products.stride()[2:] != (m, 1):
            products = products.contiguous()
        q_squares, k_squares, left = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_squares, k_squares, left))
        self.tensors = [
            products,
            q_squares,
            k_squares,
            *(contiguous(x) for x in (temperature, gate, alpha)),
            left,
        ]
        self.strides = [*products.stride()[:2], *q_squares.stride()[:2], *k_squares.stride()[:2], left.stride(0)]
        columns = tile_side(m, MOST_HEAD_ROWS)
        self.constants: dict[str, Any] = {
            "ROWS": self.rows,
            "C": c,
            "K": m - c,
            "CHANNELWISE": channelwise,
            "BLOCK_O": tile_side(self.rows, 32),
            "BLOCK_M": columns,
            # The least that tl.dot takes: at c = 96 and K = 1, ``fold`` already fills the 255 registers of a thread.
            "BLOCK_R": 16,
            "TYPE": accumulation_type(products.dtype),
            "num_warps": 4 if columns <= 128 else 8,
        }


def empty_matrices(products: Tensor, left: Tensor, gate: Tensor | None) -> list[Tensor]:
    """Returns uninitialised M_v, (B, O, h*c), and, with a gate, M_g, (B, O, h*K)."""
    batch, heads, m = products.shape[:3]
    rows, channels = left.shape
    widths = [channels] if gate is None else [channels, heads * m - channels]
    return [torch.empty((batch, rows, width), device=products.device, dtype=products.dtype) for width in widths]


def _check(
    products: Tensor, squares: tuple[Tensor, Tensor], terms: tuple[Tensor | None, ...], left: Tensor, channelwise: bool
) -> None:
    require("fold", device_unsupported_reason(products) or dtype_unsupported_reason(products))
    heads, m = products.shape[1:3]
    tokens = m - left.shape[1] // heads
    if products.dtype is not accumulation_dtype(products.dtype):
        raise InputError(f"fold: the Gram blocks are {products.dtype}; expected float32")
    if m > MOST_HEAD_ROWS:
        raise InputError(f"fold: a head has {m} channels and tokens; expected at most {MOST_HEAD_ROWS}")
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
