"""Checks Gram blocks and the parameters that fold them, and lays them out for the kernels of ``fold``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..precision import accumulation_dtype
from .launch import contiguous, device_unsupported_reason, dtype_unsupported_reason, require
from .tiles import accumulation_type, along_pixels, tile_side

MOST_HEAD_ROWS = 4096
"""The most channels and tokens of one head: a softmax takes its whole row, which has to fit into one tile."""


class FoldArguments:
    """Gram blocks and parameters, checked, as arguments of the kernels.

    Attributes:
        batch: number of images, B.
        heads: number of heads, h.
        rows: rows of ``left``, O.
        tensors: the blocks and parameters, in the kernels' order.
        left_row: stride of rows in ``left``, in elements.
        constants: compile-time constants and options of the kernels.
    """

    def __init__(
        self,
        gram: Tensor,
        temperature: Tensor,
        left: Tensor,
        gate: Tensor | None,
        alpha: Tensor | None,
        channelwise: bool,
    ) -> None:
        _check(gram, (temperature, gate, alpha), left, channelwise)
        self.batch, self.heads, _, m = gram.shape
        self.rows, channels = left.shape
        c = channels // self.heads
        left = along_pixels(left)
        self.tensors = [gram.contiguous(), *(contiguous(x) for x in (temperature, gate, alpha)), left]
        self.left_row = left.stride(0)
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
            "TYPE": accumulation_type(gram.dtype),
            "num_warps": 4 if columns <= 128 else 8,
        }


def empty_matrices(gram: Tensor, left: Tensor, gate: Tensor | None) -> list[Tensor]:
    """Returns uninitialised M_v, (B, O, h*c), and, with a gate, M_g, (B, O, h*K)."""
    batch, heads, _, m = gram.shape
    rows, channels = left.shape
    widths = [channels] if gate is None else [channels, heads * m - channels]
    return [torch.empty((batch, rows, width), device=gram.device, dtype=gram.dtype) for width in widths]


def _check(gram: Tensor, terms: tuple[Tensor | None, ...], left: Tensor, channelwise: bool) -> None:
    require("fold", device_unsupported_reason(gram) or dtype_unsupported_reason(gram))
    if gram.dim() != 4 or gram.shape[2] != gram.shape[3] + 2:
        raise InputError(
            f"fold: the Gram blocks are {tuple(gram.shape)}; expected (B, h, m+2, m): m rows of products, then the "
            "squared norms"
        )
    _, heads, _, m = gram.shape
    tokens = m - left.shape[1] // heads
    if gram.dtype is not accumulation_dtype(gram.dtype):
        raise InputError(f"fold: the Gram blocks are {gram.dtype}; expected float32")
    if m > MOST_HEAD_ROWS:
        raise InputError(f"fold: a head has {m} channels and tokens; expected at most {MOST_HEAD_ROWS}")
    if left.ndim != 2 or left.shape[1] % heads or tokens < 0 or left.numel() == 0 or gram.numel() == 0:
        raise InputError(
            f"fold: left is {tuple(left.shape)} for {heads} heads of {m} rows; expected (O, h*c), c at most {m}, no "
            "dimension 0"
        )
    if any((x is None) != (tokens == 0) for x in terms[1:]) or any(x is not None and x.numel() != heads for x in terms):
        raise InputError(
            f"fold: temperature, gate and alpha are {[None if x is None else tuple(x.shape) for x in terms]} for "
            f"{heads} heads of {tokens} tokens; expected {heads} elements each, gate and alpha None without tokens"
        )
    if channelwise and tokens != m - tokens:
        raise InputError(f"fold: {tokens} tokens re-injected channelwise; expected as many as channels, {m - tokens}")
