"""Products of maps with a small matrix for each image, by whichever of PyTorch's operators is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .recompute import makes_graph

# Multiplications for one image from which a convolution is faster on a CPU; at half as many, both take equally long.
_WORTH_A_CONVOLUTION = 2**23


def product(matrices: Tensor, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """``matrices @ x + shift``.

    Args:
        matrices: (B, O, M).
        x: map (B, M, H, W) of the same dtype.
        shift: (B, O), added to every pixel.

    Returns:
        (B, O, H, W).
    """
    if as_convolution(matrices, x):
        return _convolved(matrices, x, shift)
    pixels = x.flatten(2)
    out = torch.bmm(matrices, pixels) if shift is None else torch.baddbmm(shift.unsqueeze(-1), matrices, pixels)
    return out.unflatten(2, x.shape[2:])


def add_product(out: Tensor, matrices: Tensor, x: Tensor) -> Tensor:
    """Adds ``product(matrices, x)`` to ``out`` (B, O, H, W) in place; use what it returns."""
    if as_convolution(matrices, x):
        return out.add_(_convolved(matrices, x, None))
    # The operation's result is returned, not `out`: in a traced graph, an in-place operation on a view changes the view
    # alone.
    return out.flatten(2).baddbmm_(matrices, x.flatten(2)).unflatten(2, x.shape[2:])


def product_of_heads(matrices: Tensor, rows: Tensor) -> Tensor:
    """``matrices @ rows``, (B, h, O, M) and (B, h, M, N) of the same dtype -> (B, h, O, N)."""
    found = product(matrices.flatten(0, 1), rows.flatten(0, 1).unsqueeze(2))
    return found.squeeze(2).unflatten(0, (-1, matrices.shape[1]))


def as_convolution(matrices: Tensor, x: Tensor) -> bool:
    """Whether a 1x1 convolution with one group for each image multiplies faster than ``torch.bmm``.

    oneDNN's convolutions take about half the time of matrix products on processors for which the latter are not tuned,
    and no more time on others. They do not support float64.
    """
    if x.device.type != "cpu" or x.dtype is not torch.float32 or makes_graph():
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return matrices.shape[1] * matrices.shape[2] * x.shape[2] * x.shape[3] >= _WORTH_A_CONVOLUTION


def _convolved(matrices: Tensor, x: Tensor, shift: Tensor | None) -> Tensor:
    weight = matrices.flatten(0, 1)[:, :, None, None]
    bias = None if shift is None else shift.flatten()
    return F.conv2d(x.flatten(0, 1)[None], weight, bias, groups=len(x)).unflatten(1, matrices.shape[:2])[0]
