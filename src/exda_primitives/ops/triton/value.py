"""The output of an attention whose value has a non-linear branch; of its maps, backward keeps only v and the tokens.

``out = M_v v + M_t t + M_g g + shift + residual``, ``t = GELU(DW(W1 v + b1))``: three passes, a product,
``depthwise`` and ``mix``. Backward computes ``u = W1 v`` and t again, by a product and a depthwise pass, instead of
keeping these two maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import without_autocast
from ..terms import Branch
from .depthwise import compute as depthwise_inside
from .depthwise import unsupported_reason
from .depthwise_backward import depthwise_gradients
from .launch import require
from .mix import compute as mix_inside
from .mix import matrix_gradients, weight_gradients
from .norm_pointwise import pointwise
from .operator import differentiable, fake, operator


def mix_value(
    v: Tensor,
    branch: Branch,
    value_matrix: Tensor | None,
    branch_matrix: Tensor,
    g: Tensor | None = None,
    token_matrix: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Computes ``M_v v + M_t GELU(DW(W1 v + b1)) + M_g g + shift + residual`` for each image; differentiable once.

    Args:
        v: (B, C, H, W), float32, float16 or bfloat16; a slice of the channels of a larger map is read in place.
        branch: W1, b1 and DW; its last convolution is part of ``branch_matrix`` already. Parameters are of any dtype.
        value_matrix: M_v, (B, O, C), or None for a branch that replaces the value; dtypes of matrices as for
            ``mix.mix``.
        branch_matrix: M_t, (B, O, C).
        g: tokens, (B, h*K, H, W) of the dtype of ``v``, or None.
        token_matrix: M_g, (B, O, h*K); None if and only if ``g`` is.
        shift: (B, O), added to every pixel, or None.
        residual: (B, O, H, W) of the dtype of ``v``, or None.

    Returns:
        (B, O, H, W), contiguous, in the dtype of ``v``.

    Raises:
        InputError: for shapes that do not fit each other, and where no kernel can run.
    """
    require("exda::mix_value", unsupported_reason(v, branch.depthwise_weight, branch.depthwise_bias, "gelu"))
    weight, bias, depthwise_weight, depthwise_bias, *_ = branch
    of_branch = weight, bias, depthwise_weight, depthwise_bias
    return _mix_value(value_matrix, branch_matrix, token_matrix, v, g, *of_branch, shift, residual)


def _product(v: Tensor, weight: Tensor) -> Tensor:
    """Returns ``W1 v``; the depthwise convolution adds the bias as it reads."""
    # One pass for both convolutions does not pay. The depthwise one needs its neighbours' products: together they are
    # a dense 3x3 convolution, 9 C^2 multiplications per pixel. At 1024x1024 and C = 96 these are 0.17 TFLOP, 0.35 ms at
    # half of an H100's peak in bfloat16; not writing and reading the map between them would save 0.13 ms at 3 TB/s.
    return pointwise(v, weight.flatten(1), None)


def _present(*tensors: Tensor | None) -> list[Tensor]:
    return [x for x in tensors if x is not None]


def _maps(value_matrix: Tensor | None, v: Tensor, t: Tensor, g: Tensor | None) -> list[Tensor]:
    """Returns the maps of ``mix``, (B, C_i, N), in the order of their matrices; without M_v, v is left out."""
    return [x.flatten(2) for x in _present(None if value_matrix is None else v, t, g)]


def compute(
    value_matrix: Tensor | None,
    branch_matrix: Tensor,
    token_matrix: Tensor | None,
    v: Tensor,
    g: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    shift: Tensor | None,
    residual: Tensor | None,
    valid: int | None = None,
) -> Tensor:
    """Computes ``mix_value`` inside another operator.

    If ``valid`` is given, the maps are that wide and padded to longer rows (``pitch``).
    """
    t = depthwise_inside(_product(v, weight), depthwise_weight, depthwise_bias, "gelu", bias, valid)
    matrices = _present(value_matrix, branch_matrix, token_matrix)
    out = mix_inside(matrices, _maps(value_matrix, v, t, g), shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, v.shape[2:])


@operator("mix_value")
def _mix_value(
    value_matrix: Tensor | None,
    branch_matrix: Tensor,
    token_matrix: Tensor | None,
    v: Tensor,
    g: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    shift: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    of_branch = weight, bias, depthwise_weight, depthwise_bias
    return compute(value_matrix, branch_matrix, token_matrix, v, g, *of_branch, shift, residual)


@fake(_mix_value)
def _mix_value_fake(
    value_matrix: Tensor | None,
    branch_matrix: Tensor,
    token_matrix: Tensor | None,
    v: Tensor,
    g: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    shift: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    return torch.empty((v.shape[0], branch_matrix.shape[1], *v.shape[2:]), dtype=v.dtype, device=v.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *saved, shift, _ = inputs
    ctx.shift_dtype = None if shift is None else shift.dtype
    ctx.save_for_backward(*saved)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *given, v, g, weight, bias, depthwise_weight, depthwise_bias = ctx.saved_tensors
    # Inputs 0 to 2 are M_v, M_t and M_g, 3 v, 4 g, 5 and 6 W1 and b1, 7 and 8 DW's, 9 the shift, 10 the residual.
    needed = ctx.needs_input_grad
    out = grad.flatten(2)
    gradients: list[Tensor | None] = [None] * len(needed)
    with without_autocast(v):
        u = _product(v, weight)
        if any(needed[:3]) or needed[9]:
            t = torch.ops.exda.depthwise(u, depthwise_weight, depthwise_bias, "gelu", bias)
            of_matrices, of_shift = matrix_gradients(out, _maps(given[0], v, t, g))
            # Frees its memory before the maps' gradients are made.
            del t
            each = iter(of_matrices)
            gradients[:3] = [None if m is None else next(each).to(m.dtype) for m in given]
            gradients[9] = of_shift.to(ctx.shift_dtype) if needed[9] else None
        if any(needed[3:9]):
            # dX_i = M_i^T D for t and g. Of the maps only sizes count: u stands in for t, which is as large.
            of_maps = torch.ops.exda.mix_map_gradients(out, _present(*given[1:]), _maps(None, v, u, g))
            gradients[4] = None if g is None else of_maps[1].unflatten(2, g.shape[2:])
            dt = of_maps[0].unflatten(2, v.shape[2:])
            need_u, need_depthwise = any(needed[index] for index in (3, 5, 6)), needed[7] or needed[8]
            du, *gradients[7:9] = depthwise_gradients(
                dt, u, depthwise_weight, depthwise_bias, "gelu", need_u, need_depthwise, bias
            )
            if needed[3]:
                # dv = W1^T du + M_v^T D; without M_v the first term alone.
                back, upstream = [weight.flatten(1)[None]], [du.flatten(2)]
                if given[0] is not None:
                    back, upstream = [*back, given[0]], [*upstream, out]
                gradients[3] = torch.ops.exda.mix_transposed(back, upstream).unflatten(2, v.shape[2:])
            if needed[5] or needed[6]:
                # dW1 = du v^T and db1 = du 1
                gradients[5:7] = weight_gradients(v.flatten(2), [du.flatten(2)], [weight], bias)
    gradients[10] = grad
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


differentiable(_mix_value, _differentiate, _save)
