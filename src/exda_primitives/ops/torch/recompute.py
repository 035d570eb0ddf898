"""When backward computes anew what forward could keep, and in which dtype.

Of an attention's maps, backward needs x, q, k, v and the map before GELU; the 1x1 convolutions' outputs, GELU's own and
float32 copies of half types are cheap to make again. Autograd's own nodes keep them all. So where autograd records,
these steps are functions of their own, whose forward passes are the same operations.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..precision import product_dtype


def recomputes(*tensors: Tensor | None) -> bool:
    """Whether autograd records a gradient of one of these, eagerly and backward.

    A compiler decides by itself what to keep, and sees more if it sees plain operations; an exporter wants nothing
    else. Derivatives taken forward keep nothing.
    """
    if makes_graph():
        return False
    # Nothing public tells of a level that has been entered.
    if forward_ad._current_level >= 0:
        return False
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def makes_graph() -> bool:
    """Whether a compiler, tracer or exporter looks on, whose graph is to be one for all sizes."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.compiler.is_compiling() or bool(tracing) or torch.onnx.is_in_onnx_export()


def as_product_takes(x: Tensor) -> Tensor:
    """``x`` in the dtype in which convolutions and matrix products take it.

    Cast inside a function of autograd, a weight would enter autocast's cache without its gradient.
    """
    return x.to(product_dtype(x))
