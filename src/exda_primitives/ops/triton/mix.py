"""Small matrices times large maps, ``out = sum_i M_i X_i + shift + residual``, in one pass.

This is an attention's output, ``M_v V + M_t t + M_g G + shift``: value channels, the hidden map of the non-linear value
and the tokens are multiplied by their own matrices, one pair after the other into one float32 accumulator. Concatenated
instead, one token would make 49 channels of 48, and a product of these is not aligned. The pass reads every map and the
residual once (more than 128 output channels: once from memory, again from the cache) and writes the output once.

Backward, with D the output's gradient: one pass reads D and writes ``dX_i = M_i^T D`` for all pairs; another reads D
and the maps and writes ``dM_i = D X_i^T`` and ``dshift = D 1``, one partial sum for each split of the pixels.

For the gradients of the 1x1 convolutions around it, too: ``mix_transposed``, ``sum_i M_i^T X_i``, is what several of
them, by weights M_i, send back to their common input, and ``mix_weight_gradients`` are their weights' gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..precision import accumulation_dtype
from .launch import device_unsupported_reason, divide_up, dtype_unsupported_reason, require, summed
from .mix_kernels import map_gradients_kernel, matrix_gradients_kernel, mix_kernel
from .operator import differentiable, differentiable_no_more, fake, operator
from .packed import parameter_gradients
from .tiles import accumulation_type, along_pixels, dot_precision, largest_side, pixels_per_split, tile_side

# The most pairs of a matrix and a map: M_v, M_t and M_g.
PAIRS = 3


def mix(
    matrices: Sequence[Tensor], maps: Sequence[Tensor], shift: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """Computes ``sum_i matrices[i] @ maps[i] + shift + residual`` for each image; differentiable once.

    Args:
        matrices: one to three, (B, O, C_i), of one dtype, preferably float32: those of more than 8 channels are rounded
            to the maps' dtype.
        maps: as many, (B, C_i, N), B, C_i, N >= 1, of float32, float16 or bfloat16; a slice of a larger buffer (any
            strides of images and channels) is read in place if neighbouring pixels are neighbours in memory, else
            copied.
        shift: (B, O), added to every pixel, of any dtype, or None; strides may be 0 (an expanded bias).
        residual: (B, O, N) of the maps' dtype, or None; read in place or copied like a map.

    Returns:
        (B, O, N) of the maps' dtype, contiguous. It and all gradients are the same bits in every run of one process.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    return _mix(list(matrices), list(maps), shift, residual)


def _check(matrices: Sequence[Tensor], maps: Sequence[Tensor], shift: Tensor | None, residual: Tensor | None) -> None:
    if not 1 <= len(maps) <= PAIRS or len(matrices) != len(maps):
        raise InputError(f"mix: {len(matrices)} matrices and {len(maps)} maps; expected as many of both, 1 to {PAIRS}")
    matrix, first = matrices[0], maps[0]
    require("mix", device_unsupported_reason(first) or dtype_unsupported_reason(first))
    for m, x in zip(matrices, maps, strict=True):
        if x.ndim != 3 or x.numel() == 0 or x.shape[::2] != first.shape[::2] or x.dtype != first.dtype:
            raise InputError(
                f"mix: maps are {[tuple(x.shape) for x in maps]} of {[x.dtype for x in maps]}; expected (B, C_i, N), "
                "none of them 0, of one dtype"
            )
        if m.shape != (len(first), matrix.shape[1], x.shape[1]) or m.numel() == 0 or m.dtype != matrix.dtype:
            raise InputError(
                f"mix: matrices are {[tuple(m.shape) for m in matrices]} of {[m.dtype for m in matrices]} for maps "
                f"{[tuple(x.shape) for x in maps]}; expected (B, O, C_i), O and the dtype the same for all"
            )
    size = (len(first), matrix.shape[1], first.shape[2])
    if shift is not None and shift.shape != size[:2]:
        raise InputError(f"mix: shift is {tuple(shift.shape)}; expected {size[:2]}")
    if residual is not None and (residual.shape != size or residual.dtype != first.dtype):
        raise InputError(
            f"mix: residual is {tuple(residual.shape)} of {residual.dtype}; expected {size} of {first.dtype}"
        )


class _Pairs:
    """Matrices and maps as the kernels take them: three pairs, of which the last ones may have 0 channels."""

    def __init__(self, matrices: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
        absent = PAIRS - len(maps)
        self.widths = [x.shape[1] for x in maps] + [0] * absent
        # Kernels take a fixed number of tensors: those of an absent pair, of 0 channels, are never read.
        self.matrices = [along_pixels(m) for m in matrices] + [matrices[0]] * absent
        self.maps = [along_pixels(x) for x in maps] + [maps[0]] * absent

    @property
    def channels(self) -> dict[str, int]:
        """C0, C1 and C2, compile-time constants of the kernels."""
        return {f"C{i}": width for i, width in enumerate(self.widths)}


def _strides(tensors: Sequence[Tensor]) -> list[int]:
    """Returns the strides of images of all tensors, then those of rows, in the kernels' order."""
    return [x.stride(0) for x in tensors] + [x.stride(1) for x in tensors]


def compute(matrices: list[Tensor], maps: list[Tensor], shift: Tensor | None, residual: Tensor | None) -> Tensor:
    """Computes ``mix`` inside of an operator: without gradients."""
    _check(matrices, maps, shift, residual)
    x = maps[0]
    out = torch.empty((x.shape[0], matrices[0].shape[1], x.shape[2]), device=x.device, dtype=x.dtype)
    _fill(matrices, maps, shift, residual, out, transposed=False)
    return out


def fill_transposed(matrices: list[Tensor], maps: list[Tensor], out: Tensor) -> None:
    """Writes ``sum_i M_i^T X_i`` into ``out``, (B, O, N), whose rows follow one another in memory.

    Matrices are (B or 1, C_i, O), of any dtypes, maps (B, C_i, N).
    """
    expanded = [m.expand(len(out), -1, -1) for m in matrices]
    _fill(expanded, maps, None, None, out, transposed=True)


def _fill(
    matrices: list[Tensor],
    maps: list[Tensor],
    shift: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    *,
    transposed: bool,
) -> None:
    pairs = _Pairs(matrices, maps)
    batch, rows, pixels = out.shape
    block = tile_side(rows, largest_side(maps[0]))
    # Absent tensors are replaced by one with strides to hand over; the kernel reads neither.
    constant = out if shift is None else shift
    identity = out if residual is None else along_pixels(residual)
    mix_kernel[lambda meta: (divide_up(rows, block) * divide_up(pixels, meta["BLOCK_N"]), batch)](
        *pairs.matrices,
        *pairs.maps,
        constant,
        identity,
        out,
        *_strides(pairs.matrices),
        *_strides(pairs.maps),
        *constant.stride()[:2],
        *identity.stride()[:2],
        out.stride(0),
        pixels,
        ROWS=rows,
        **pairs.channels,
        SHIFT=shift is not None,
        RESIDUAL=residual is not None,
        BLOCK_O=block,
        TRANSPOSED=transposed,
        TYPE=accumulation_type(out.dtype),
        PRECISION=dot_precision(out),
    )


_mix = operator("mix", "(Tensor[] matrices, Tensor[] maps, Tensor? shift, Tensor? residual) -> Tensor")(compute)


@fake(_mix)
def _(matrices: list[Tensor], maps: list[Tensor], shift: Tensor | None, residual: Tensor | None) -> Tensor:
    x = maps[0]
    return torch.empty((x.shape[0], matrices[0].shape[1], x.shape[2]), device=x.device, dtype=x.dtype)


def map_gradients(grad: Tensor, matrices: list[Tensor], maps: list[Tensor]) -> list[Tensor]:
    """Returns the gradients ``M_i^T D`` of all maps; of ``maps``, only sizes, dtypes and devices count."""
    grad = along_pixels(grad)
    pairs = _Pairs(matrices, maps)
    batch, rows, pixels = grad.shape
    block = tile_side(max(pairs.widths), 64)
    # A tile of channels belongs to one map: each map has its own, and the tiles of all are one launch.
    tiles = sum(divide_up(width, block) for width in pairs.widths)
    grads = [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in maps]
    map_gradients_kernel[lambda meta: (tiles * divide_up(pixels, meta["BLOCK_N"]), batch)](
        grad,
        *pairs.matrices,
        *grads,
        *[grads[0]] * (PAIRS - len(grads)),
        *grad.stride()[:2],
        *_strides(pairs.matrices),
        pixels,
        ROWS=rows,
        **pairs.channels,
        BLOCK_C=block,
        TYPE=accumulation_type(grad.dtype),
        PRECISION=dot_precision(grad),
    )
    return grads


_map_gradients = operator("mix_map_gradients", "(Tensor grad, Tensor[] matrices, Tensor[] maps) -> Tensor[]")(
    map_gradients
)


@fake(_map_gradients)
def _(grad: Tensor, matrices: list[Tensor], maps: list[Tensor]) -> list[Tensor]:
    return [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in maps]


@operator("mix_transposed", "(Tensor[] matrices, Tensor[] maps) -> Tensor")
def _mix_transposed(matrices: list[Tensor], maps: list[Tensor]) -> Tensor:
    """Returns what ``fill_transposed`` writes."""
    out = _empty_transposed(matrices, maps)
    fill_transposed(matrices, maps, out)
    return out


@fake(_mix_transposed)
def _empty_transposed(matrices: list[Tensor], maps: list[Tensor]) -> Tensor:
    x = maps[0]
    return torch.empty((x.shape[0], matrices[0].shape[2], x.shape[2]), device=x.device, dtype=x.dtype)


@operator("mix_matrix_gradients", "(Tensor grad, Tensor[] maps) -> Tensor")
def _matrix_gradients(grad: Tensor, maps: list[Tensor]) -> Tensor:
    return packed_matrix_gradients(grad, maps)


@fake(_matrix_gradients)
def _(grad: Tensor, maps: list[Tensor]) -> Tensor:
    size = grad.shape[1] * (sum(x.shape[1] for x in maps) + 1)
    return torch.empty((grad.shape[0], size), device=grad.device, dtype=accumulation_dtype(grad.dtype))


@operator("mix_weight_gradients", "(Tensor x, Tensor[] grads) -> Tensor")
def _weight_gradients(x: Tensor, grads: list[Tensor]) -> Tensor:
    return packed_weight_gradients(x, grads)


@fake(_weight_gradients)
def _(x: Tensor, grads: list[Tensor]) -> Tensor:
    size = (x.shape[1] + 1) * sum(grad.shape[1] for grad in grads)
    return torch.empty((size,), device=x.device, dtype=accumulation_dtype(x.dtype))


def packed_matrix_gradients(grad: Tensor, maps: list[Tensor]) -> Tensor:
    """Returns each image's gradients of all matrices, then the shift's, as one: see ``matrix_gradients_kernel``."""
    return summed(_partial_gradients(grad, maps, transposed=False))


def packed_weight_gradients(x: Tensor, grads: list[Tensor]) -> Tensor:
    """Returns the gradients of all weights, then the biases', as one vector: see ``matrix_gradients_kernel``."""
    return summed(_partial_gradients(x, grads, transposed=True).flatten(0, 1))


def _partial_gradients(grad: Tensor, maps: list[Tensor], *, transposed: bool) -> Tensor:
    """Returns what the splits of the pixels add up to, (splits, B, size): see ``matrix_gradients_kernel``."""
    grad = along_pixels(grad)
    pairs = _Pairs([grad], maps)
    batch, rows, pixels = grad.shape
    largest = largest_side(grad)
    block_o, block_c = tile_side(rows, largest), tile_side(max(pairs.widths), largest)
    tiles = divide_up(rows, block_o) * sum(divide_up(width, block_c) for width in pairs.widths)
    split = pixels_per_split(pixels, batch * tiles, grad.device)
    splits = divide_up(pixels, split)
    width = sum(pairs.widths)
    size = rows * width + (width if transposed else rows)
    partial = torch.empty((splits, batch, size), device=grad.device, dtype=accumulation_dtype(grad.dtype))
    matrix_gradients_kernel[(splits * tiles, batch)](
        grad,
        *pairs.maps,
        partial,
        *grad.stride()[:2],
        *_strides(pairs.maps),
        pixels,
        ROWS=rows,
        **pairs.channels,
        SPLIT=split,
        BLOCK_O=block_o,
        BLOCK_C=block_c,
        TRANSPOSED=transposed,
        TYPE=accumulation_type(grad.dtype),
        PRECISION=dot_precision(grad),
    )
    return partial


def matrix_gradients(grad: Tensor, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Returns the gradients of matrices and shift, given that of ``mix``'s output.

    Args:
        grad: D, (B, O, N).
        maps: (B, C_i, N) each.

    Returns:
        ``D X_i^T``, (B, O, C_i) each, and ``D 1``, (B, O); float32, views of one tensor.
    """
    return unpacked_matrices(_matrix_gradients(grad, maps), grad.shape[1], [x.shape[1] for x in maps])


def unpacked_matrices(packed: Tensor, rows: int, widths: list[int]) -> tuple[list[Tensor], Tensor]:
    """Takes ``packed_matrix_gradients`` apart: views (B, O, C_i), and (B, O)."""
    *matrices, shift = packed.split([*(rows * width for width in widths), rows], 1)
    return [each.unflatten(1, (rows, width)) for each, width in zip(matrices, widths, strict=True)], shift


def weight_gradients(x: Tensor, grads: list[Tensor], weights: list[Tensor], bias: Tensor | None) -> list[Tensor | None]:
    """Returns the gradients of weights and bias of 1x1 convolutions of one map, summed over images and pixels.

    Args:
        x: the map, (B, C, N).
        grads: the gradient of each convolution's output, (B, O_i, N).
        weights: one for each convolution, of O_i x C elements.
        bias: (O_0,), that of the first convolution, or None.

    Returns:
        Gradients in the shapes and dtypes of the weights and, last, of the bias.
    """
    return parameter_gradients(_weight_gradients(x, grads), [*weights, bias])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    matrices, maps, shift, _ = inputs
    ctx.pairs = len(maps)
    ctx.shift_dtype = None if shift is None else shift.dtype
    ctx.save_for_backward(*matrices, *maps)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    matrices, maps = list(ctx.saved_tensors[: ctx.pairs]), list(ctx.saved_tensors[ctx.pairs :])
    matrix_wanted, map_wanted, shift_wanted, residual_wanted = ctx.needs_input_grad
    map_grads: list[Tensor | None] = [None] * len(maps)
    if any(map_wanted):
        map_grads = [*_map_gradients(grad, matrices, maps)]
    matrix_grads: list[Tensor | None] = [None] * len(maps)
    shift_grad = None
    if any(matrix_wanted) or shift_wanted:
        found, of_shift = matrix_gradients(grad, maps)
        matrix_grads = [each.to(m.dtype) for each, m in zip(found, matrices, strict=True)]
        shift_grad = of_shift.to(ctx.shift_dtype) if shift_wanted else None
    # The residual is added as it is: its gradient is D.
    return matrix_grads, map_grads, shift_grad, grad if residual_wanted else None


differentiable(_mix, _differentiate, _save)
differentiable_no_more(_mix_transposed)
differentiable_no_more(_map_gradients)
differentiable_no_more(_matrix_gradients)
differentiable_no_more(_weight_gradients)
