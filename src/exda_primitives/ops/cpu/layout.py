"""Conversion between contiguous maps, as hosts have them, and channels_last: a pixel's channels next to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..torch.recompute import makes_graph, recomputes
from .unsupported import transform_reason

# Channels that are a multiple of _PAGE bytes apart share the sets of a cache: _CHANNELS of them are copied at a time.
_PAGE, _CHANNELS = 4096, 16
# Attribute of a channels_last tensor that one block gives to the next, while hosts expect a contiguous one.
_HANDED_ON = "_exda_handed_on"


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is channels_last."""
    return x.is_contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """Returns ``x`` in channels_last: itself if it is, else a copy."""
    apart = x.shape[2] * x.shape[3] * x.element_size()
    if is_channels_last(x) or not x.is_contiguous() or apart % _PAGE or recomputes(x):
        return x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    # The sets that all channels share hold only a few of them: copying a few at a time takes half as long.
    for ours, theirs in zip(out.split(_CHANNELS, 1), x.split(_CHANNELS, 1), strict=True):
        ours.copy_(theirs)
    return out


def may_hand_on(x: Tensor) -> bool:
    """Whether a block may give its output for ``x`` in channels_last to the next block, whatever the layout of ``x``.

    On a CPU, where steps take channels_last, and without gradients: in training, steps take whole maps anyway.
    """
    return not transform_reason(x) and x.device.type == "cpu" and not torch.is_grad_enabled()


def hand_on(x: Tensor, like: Tensor) -> Tensor:
    """Marks a block's output ``x`` for the next block, if it is not in the layout of ``like``, as hosts expect it."""
    if is_channels_last(x) and not is_channels_last(like):
        setattr(x, _HANDED_ON, True)
    return x


def layout_for_hosts(x: Tensor) -> Tensor:
    """Returns a tensor with the layout in which the modules of hosts expect a block's input ``x``: ``x``, if it has it.

    For a map that another block handed on, this is a contiguous one without memory.
    """
    if not hasattr(x, _HANDED_ON):
        return x
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def in_layout(x: Tensor, like: Tensor) -> Tensor:
    """Returns a block's output ``x`` in the layout that its modules would give for the input ``like``.

    That is contiguous, for hosts that ``view`` it, unless both are channels_last.
    """
    if x is like:
        return x
    if transform_reason(x):
        # No step on a CPU runs there, so none has changed the layout; a kernel's output may be cut out of longer rows.
        return x.contiguous() if makes_graph() and like.is_contiguous() else x
    return x if is_channels_last(like) and is_channels_last(x) else x.contiguous()


def empty(x: Tensor, like: Tensor | None) -> Tensor:
    """Allocates a tensor of the shape of ``x``: channels_last, or contiguous if ``like`` is given and contiguous."""
    last = like is None or is_channels_last(like)
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


def add_into(out: Tensor, x: Tensor, change: Tensor) -> None:
    """Writes ``x + change`` into ``out``, in the dtype of ``x``; ``change`` may be overwritten."""
    if is_channels_last(out):
        torch.add(x, change, out=out)
    elif change.dtype is not x.dtype:
        out.copy_(x + change)
    else:
        # Two passes: the sum in channels_last, in the cache, then the copy; a sum across two layouts takes longer.
        out.copy_(change.add_(x))


def by_pixel(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return x.permute(0, 2, 3, 1)


def by_channel(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view."""
    return x.permute(0, 3, 1, 2)
