"""Global spatial tokens from their logits: pooled, softmax over space, brought to mean 1, upsampled.

``G = upsample(P softmax(pool_s(phi)))``, in two launches: average pooling with stride s (ceil mode, padding not
counted), softmax over the P pooled pixels (cells), bilinear interpolation (align_corners=False). The first launch reads
phi, writes the pooled logits and, for each chunk of them, their maximum and the sum of ``exp(logit - maximum)``; the
second finishes the softmax as it interpolates, and writes G.

Backward goes the same way back in two launches: the interpolation's transpose gathers for every cell (G's gradient is
read from memory once, from the cache about four times) and sums each chunk's part of the softmax's inner product; then
every pixel takes its share of its cell's gradient.

Interpolation weights are fractions of integers, exact to the last bit at any size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import accumulation_dtype
from .launch import device_unsupported_reason, divide_up, dtype_unsupported_reason, require
from .operator import differentiable, differentiable_no_more, fake, operator
from .tiles import accumulation_type
from .tokens_kernels import pool_backward_kernel, pool_kernel, upsample_backward_kernel, upsample_kernel

# Cells or pixels that a program takes at a time.
_BLOCK = 1024
# The most chunks of a map: every program of the second launch reads the maximum and the sum of all of them.
_MOST_CHUNKS = 256
# Numerators of ``tokens_kernels.between``, at most 2 * side * side, have to fit 32 bits.
_LONGEST_SIDE = 32767


def unsupported_reason(phi: Tensor, stride: int) -> str | None:
    """Why ``token_maps`` cannot be computed; None if it can.

    Args:
        phi: (B, M, H, W).
        stride: of the pooling.
    """
    if phi.dim() != 4 or 0 in phi.shape:
        return f"phi is {tuple(phi.shape)}; the kernel takes (B, M, H, W), none of them 0"
    if max(phi.shape[2:]) > _LONGEST_SIDE:
        return f"phi is {tuple(phi.shape)}; the kernel takes maps of at most {_LONGEST_SIDE} pixels a side"
    if stride < 1:
        return f"the stride is {stride}; it has to be at least 1"
    return dtype_unsupported_reason(phi) or device_unsupported_reason(phi)


def token_maps(phi: Tensor, stride: int) -> Tensor:
    """Computes token maps of compact mean 1 from their logits; differentiable once.

    Args:
        phi: (B, M, H, W), float32, float16 or bfloat16, of any strides: Phi's rows of a larger product are read in
            place.
        stride: of the pooling, s >= 1.

    Returns:
        G, (B, M, H, W), contiguous, non-negative, in the dtype of ``phi``. Its compact maps have mean 1; used as
        values, tokens of scale ``"sum"`` still need the factor 1 / (ceil(H/s) * ceil(W/s)): see
        ``tokens.unit_mean``. Pooling and softmax are float32.

    Raises:
        InputError: if the kernels do not take ``phi``; ``unsupported_reason`` says why beforehand.
    """
    require("exda::token_maps", unsupported_reason(phi, stride))
    return _token_maps(phi, stride)[0]


def _chunks(cells: int) -> tuple[int, int]:
    """Returns the number of chunks of a map of ``cells`` pooled pixels, and of blocks in each chunk."""
    steps = divide_up(cells, _BLOCK * _MOST_CHUNKS)
    # A power of two, so that the kernels' loops have one length for many sizes.
    steps = 1 << (steps - 1).bit_length()
    return divide_up(cells, _BLOCK * steps), steps


@operator("token_maps")
def _token_maps(phi: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns G and, for backward, pooled logits (B, M, h, w) and the chunks' maxima and sums (B * M, 2, chunks)."""
    out, logits, chunks = _empty_outputs(phi, stride)
    height, width = phi.shape[2:]
    rows, steps = len(chunks), _chunks(logits.shape[2] * logits.shape[3])[1]
    pool_kernel[(rows * chunks.shape[2],)](
        phi,
        logits,
        chunks,
        phi.shape[1],
        height,
        width,
        *phi.stride(),
        STRIDE=stride,
        STEPS=steps,
        TYPE=accumulation_type(phi.dtype),
        BLOCK=_BLOCK,
    )
    upsample_kernel[(rows * divide_up(height * width, _BLOCK),)](
        logits,
        chunks,
        out,
        height,
        width,
        *logits.shape[2:],
        chunks.shape[2],
        KNOWN=_MOST_CHUNKS,
        TYPE=accumulation_type(phi.dtype),
        BLOCK=_BLOCK,
    )
    return out, logits, chunks


def _empty_outputs(phi: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    size = [divide_up(side, stride) for side in phi.shape[2:]]
    count = _chunks(size[0] * size[1])[0]
    dtype, device = accumulation_dtype(phi.dtype), phi.device
    return (
        torch.empty(phi.shape, dtype=phi.dtype, device=device),
        torch.empty((*phi.shape[:2], *size), dtype=dtype, device=device),
        torch.empty((phi.shape[0] * phi.shape[1], 2, count), dtype=dtype, device=device),
    )


fake(_token_maps)(_empty_outputs)


@operator("token_maps_backward")
def _token_maps_backward(dg: Tensor, logits: Tensor, chunks: Tensor, stride: int) -> Tensor:
    """Returns the gradient of phi, (B, M, H, W), given that of G and what ``_token_maps`` returned for backward."""
    height, width = dg.shape[2:]
    rows, steps = len(chunks), _chunks(logits.shape[2] * logits.shape[3])[1]
    dphi = torch.empty(dg.shape, dtype=dg.dtype, device=dg.device)
    du = torch.empty(logits.shape, dtype=logits.dtype, device=dg.device)
    products = torch.empty((rows, chunks.shape[2]), dtype=logits.dtype, device=dg.device)
    upsample_backward_kernel[(rows * chunks.shape[2],)](
        dg,
        logits,
        chunks,
        du,
        products,
        dg.shape[1],
        height,
        width,
        *dg.stride(),
        STRIDE=stride,
        STEPS=steps,
        KNOWN=_MOST_CHUNKS,
        TYPE=accumulation_type(dg.dtype),
        BLOCK=_BLOCK,
        # 4 warps would spill.
        num_warps=8,
    )
    pool_backward_kernel[(rows * divide_up(height * width, _BLOCK),)](
        du,
        logits,
        chunks,
        products,
        dphi,
        height,
        width,
        chunks.shape[2],
        STRIDE=stride,
        KNOWN=_MOST_CHUNKS,
        TYPE=accumulation_type(dg.dtype),
        BLOCK=_BLOCK,
    )
    return dphi


@fake(_token_maps_backward)
def _token_maps_backward_fake(dg: Tensor, logits: Tensor, chunks: Tensor, stride: int) -> Tensor:
    return torch.empty(dg.shape, dtype=dg.dtype, device=dg.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, logits, chunks = output
    ctx.stride = inputs[1]
    ctx.mark_non_differentiable(logits, chunks)
    # Nobody differentiates these two: without this, autograd would make zeros as their gradients.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, chunks)


def _differentiate(ctx: Any, dg: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
    return None if dg is None else _token_maps_backward(dg, *ctx.saved_tensors, ctx.stride), None


differentiable(_token_maps, _differentiate, _save)
differentiable_no_more(_token_maps_backward)
