"""Between maps as hosts have them, contiguous, and channels_last, in which the channels of a pixel lie side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from ..torch.recompute import makes_graph, recomputes
from .unsupported import transformed

_PAGE, _CHANNELS = 4096, 16


def lies_last(x: Tensor) -> bool:
    """Whether ``x`` is channels_last."""
    return x.is_contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """``x`` itself where it lies so; else a copy."""
    apart = x.shape[2] * x.shape[3] * x.element_size()
    if lies_last(x) or not x.is_contiguous() or apart % _PAGE or recomputes(x):
        return x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    # Channels so far apart share the sets of a cache, which holds few of them: a few at a time take half as long.
    for ours, theirs in zip(out.split(_CHANNELS, 1), x.split(_CHANNELS, 1), strict=True):
        ours.copy_(theirs)
    return out


def in_layout(x: Tensor, like: Tensor) -> Tensor:
    """``x`` as the modules of a block might have made it of ``like``: contiguous, for hosts that ``view`` it."""
    if x is like:
        return x
    if transformed(x):
        # There, no step on a CPU has changed the layout; a kernel's output may be part of longer rows.
        return x.contiguous() if makes_graph() and like.is_contiguous() else x
    return x if lies_last(like) and lies_last(x) else x.contiguous()


def empty(x: Tensor, like: Tensor | None) -> Tensor:
    """Of the shape of ``x``, channels_last unless there is a ``like`` that is not."""
    last = like is None or lies_last(like)
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


def add_into(out: Tensor, x: Tensor, change: Tensor) -> None:
    """``out = x + change`` in the dtype of ``x``; ``change`` is used up."""
    if lies_last(out):
        torch.add(x, change, out=out)
    elif change.dtype is not x.dtype:
        out.copy_(x + change)
    else:
        # Two passes: the sum by pixel, in a cache, takes less than the other layout's rows would cost it.
        out.copy_(change.add_(x))


def by_pixel(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return x.permute(0, 2, 3, 1)


def by_channel(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view."""
    return x.permute(0, 3, 1, 2)
