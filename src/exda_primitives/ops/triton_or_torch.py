"""Attentions on Triton kernels, or concat-free in PyTorch where no kernels apply; residual steps by device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from . import choice, cpu
from . import torch as concat_free
from .terms import CrossTerms, GatedTerms, NormTerms, PackedQKVTerms

__all__ = [
    "attention_step",
    "computes_steps",
    "cross",
    "cross_unsupported_reason",
    "gated_step",
    "mdta",
    "mdta_unsupported_reason",
    "normalise",
    "step_unsupported_reason",
]

# Looked for, not imported: Triton exists for Linux only and is slow to import. It is imported inside the functions.
_MISSING = None if find_spec("triton") else "Triton is not installed"


def mdta_unsupported_reason(x: Tensor, terms: PackedQKVTerms) -> str | None:
    """Why ``mdta`` cannot be computed on kernels; None if it can."""
    if _MISSING:
        return _MISSING
    from . import triton  # noqa: PLC0415

    return triton.mdta_unsupported_reason(x, terms)


def cross_unsupported_reason(x: Tensor, y: Tensor, terms: CrossTerms) -> str | None:
    """Why ``cross`` cannot be computed on kernels; None if it can."""
    if _MISSING:
        return _MISSING
    from . import triton  # noqa: PLC0415

    return triton.cross_unsupported_reason(x, y, terms)


def mdta(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    """Restormer's attention with ExDA's primitives, (B, C, H, W) -> (B, C, H, W)."""
    if mdta_unsupported_reason(x, terms):
        return concat_free.mdta(x, terms)
    from . import triton  # noqa: PLC0415

    return triton.mdta(x, terms)


def cross(x: Tensor, y: Tensor, terms: CrossTerms) -> Tensor:
    """Cross attention with ExDA's primitives, two maps (B, C, H, W) -> (B, C, H, W)."""
    if cross_unsupported_reason(x, y, terms):
        return concat_free.cross(x, y, terms)
    from . import triton  # noqa: PLC0415

    return triton.cross(x, y, terms)


def computes_steps(device: torch.device) -> Literal["cpu", "triton"]:
    """Returns what computes residual steps of maps on a device, unless ``step_unsupported_reason`` rules it out."""
    return "cpu" if device.type == "cpu" and choice.current == "auto" else "triton"


def step_unsupported_reason(x: Tensor, norm: NormTerms, function: PackedQKVTerms | GatedTerms | None) -> str | None:
    """Why ``x + function(norm(x))`` cannot be computed on kernels or, on a CPU, in strips; None if it can.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels.
        function: an attention, a gated feed-forward, or None if a module computes it and only the norm runs on kernels.
    """
    if computes_steps(x.device) == "cpu":
        return cpu.step_unsupported_reason(x, norm, function)
    if _MISSING:
        return _MISSING
    from . import triton  # noqa: PLC0415

    return triton.step_unsupported_reason(x, norm, function)


def attention_step(x: Tensor, norm: NormTerms, terms: PackedQKVTerms, like: Tensor | None = None) -> Tensor:
    """``x + mdta(norm(x))``, (B, C, H, W) -> (B, C, H, W), where there is no ``step_unsupported_reason``.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels.
        terms: the attention.
        like: on the CPU, a tensor whose layout the output takes, contiguous or channels_last; None for channels_last,
            the layout that the next step takes.
    """
    if computes_steps(x.device) == "cpu":
        return cpu.attention_step(x, norm, terms, like)
    from . import triton  # noqa: PLC0415

    return triton.attention_step(x, norm, terms)


def gated_step(x: Tensor, norm: NormTerms, terms: GatedTerms, like: Tensor | None = None) -> Tensor:
    """``x + feed_forward(norm(x))``, (B, C, H, W) -> (B, C, H, W), where there is no ``step_unsupported_reason``.

    Args:
        x: (B, C, H, W).
        norm: layer normalisation over the channels.
        terms: the gated feed-forward.
        like: on the CPU, a tensor whose layout the output takes, contiguous or channels_last; None for channels_last,
            the layout that the next step takes.
    """
    if computes_steps(x.device) == "cpu":
        return cpu.gated_step(x, norm, terms, like)
    from . import triton  # noqa: PLC0415

    return triton.gated_step(x, norm, terms)


def normalise(x: Tensor, terms: NormTerms) -> Tensor:
    """Layer normalisation on kernels, (B, C, H, W) -> (B, C, H, W), where there is no ``step_unsupported_reason``."""
    from . import triton  # noqa: PLC0415

    return triton.normalise(x, terms)
