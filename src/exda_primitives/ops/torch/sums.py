"""Sums of small matrices times large maps, in place: how an attention writes its output."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import widen, without_autocast
from .products import add_product, product
from .recompute import as_product_takes, recomputes

Activation = Literal["gelu", "sigmoid", None]


class Sum:
    """``sum_i matrix_i @ activation_i(map_i) + shift``, evaluated in one output buffer.

    Backward keeps the maps before their activations, and computes the activations again.
    """

    def __init__(self) -> None:
        self._matrices: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._activations: list[Activation] = []
        self._shift: Tensor | None = None

    def add(self, matrix: Tensor, x: Tensor, activation: Activation = None) -> None:
        """Adds a term: ``matrix`` (B, O, M), which is cast to the map's dtype, and ``x`` (B, M, H, W)."""
        x = as_product_takes(x)
        if activation is not None and not recomputes(matrix, x):
            x, activation = _activated(x, activation), None
        self._matrices.append(matrix.to(x.dtype))
        self._maps.append(x)
        self._activations.append(activation)

    def shift(self, vector: Tensor) -> None:
        """Sets the ``vector`` (B, O) that is added to every pixel."""
        self._shift = vector

    def evaluate(self, bias: Tensor | None) -> Tensor:
        """Returns the sum plus ``bias`` (O,) or None, as a map (B, O, H, W)."""
        shift = self._shift
        if bias is not None:
            shift = widen(bias) if shift is None else shift + widen(bias)
        if shift is not None:
            x = self._maps[0]
            shift = shift.to(x.dtype).expand(x.shape[0], -1)
        # Without an activation, autograd's own nodes keep no more than is needed.
        function = _Sum.apply if any(self._activations) else _sum
        out: Tensor = function(tuple(self._activations), shift, *self._matrices, *self._maps)
        return out


def _activated(x: Tensor, activation: Activation) -> Tensor:
    if activation is None:
        return x
    return F.gelu(x) if activation == "gelu" else x.sigmoid()


def _sum(activations: tuple[Activation, ...], shift: Tensor | None, *factors: Tensor) -> Tensor:
    """Sums to (B, O, H, W), given a shift (B, O), then all matrices (B, O, M_i), then all maps (B, M_i, H, W)."""
    matrices, maps = factors[: len(activations)], factors[len(activations) :]
    out = None
    for matrix, x, activation in zip(matrices, maps, activations, strict=True):
        t = _activated(x, activation)
        # Backward needs a product's inputs, never its output: adding to it in place is safe.
        out = product(matrix, t, shift) if out is None else add_product(out, matrix, t)
    assert out is not None
    return out


class _Sum(torch.autograd.Function):
    """``_sum`` whose backward keeps the maps and computes their activations again."""

    generate_vmap_rule = True
    forward = staticmethod(_sum)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.activations, _, *factors = inputs
        ctx.save_for_backward(*factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.activations)
        # Read once only: activation checkpointing counts how often saved tensors are unpacked.
        saved = ctx.saved_tensors
        matrices, maps = saved[:count], saved[count:]
        _, need_shift, *needed = ctx.needs_input_grad
        d_matrices: list[Tensor | None] = []
        d_maps: list[Tensor | None] = []
        with without_autocast(grad):
            pixels = grad.flatten(2)
            for i, activation in enumerate(ctx.activations):
                x = maps[i]
                # dM_i = D t_i^T, dt_i = M_i^T D, dshift = D 1
                t = _activated(x, activation)
                d_matrices.append(torch.bmm(pixels, t.flatten(2).transpose(1, 2)) if needed[i] else None)
                dt = product(matrices[i].transpose(1, 2), grad) if needed[count + i] else None
                d_maps.append(dt if dt is None else _through(dt, x, t, activation))
            shift = pixels.sum(-1) if need_shift else None
        return None, shift, *d_matrices, *d_maps


def _through(grad: Tensor, x: Tensor, t: Tensor, activation: Activation) -> Tensor:
    """Takes a gradient through ``t = activation(x)``."""
    if activation is None:
        return grad
    return torch.ops.aten.gelu_backward(grad, x) if activation == "gelu" else torch.ops.aten.sigmoid_backward(grad, t)
