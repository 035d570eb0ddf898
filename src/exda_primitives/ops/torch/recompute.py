"""When backward computes again what forward could keep, and in which dtype.

Of an attention's maps, backward needs x, q, k, v and the map before GELU. The outputs of the 1x1 convolutions and of
GELU, and float32 copies of half types, are cheap to compute again, but autograd's own nodes keep them all. So where
autograd records, these steps are autograd functions of their own; their forward passes are the same operations.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..precision import product_dtype


def recomputes(*tensors: Tensor | None) -> bool:
    """Whether autograd records one of these tensors, in eager mode and for a backward pass.

    Not under a compiler, which decides by itself what to keep and optimises plain operations better, nor under an
    exporter, which needs plain operations, nor for forward-mode derivatives, which keep nothing.
    """
    if makes_graph():
        return False
    # PyTorch has no public way to ask whether forward mode is active.
    if forward_ad._current_level >= 0:
        return False
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def makes_graph() -> bool:
    """Whether a compiler, tracer or exporter is recording a graph, which has to serve all sizes."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.compiler.is_compiling() or bool(tracing) or torch.onnx.is_in_onnx_export()


def as_product_takes(x: Tensor) -> Tensor:
    """Casts ``x`` to the dtype in which convolutions and matrix products take it.

    To be called before an autograd function, not inside: there a weight's cast would enter autocast's cache without
    its gradient.
    """
    return x.to(product_dtype(x))
