"""Remembers the map size (H, W) of token sequences (B, H*W, C) for attentions that run again in the backward pass.

A checkpointed attention runs again when its parent's call is over and can no longer give the size. Its input is then
the same memory, though often another tensor object; so the size is kept with the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int]


def remember_grid(x: Tensor, grid: Grid) -> None:
    """Keeps ``grid`` (H, W) as the size of the tokens ``x`` (B, N, C), for as long as their memory lives."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return
    # Only where a backward pass may follow. Reentrant checkpointing first runs under no_grad; then ``x`` requires one.
    if torch.is_grad_enabled() or x.requires_grad:
        _grids_of(x)[_place(x)] = grid


def grid_before(x: Tensor) -> Grid | None:
    """Returns, in a backward pass, the size that ``remember_grid`` kept for these tokens; None at any other time."""
    # The task's id is negative outside of a backward pass.
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() < 0:
        return None
    return _grids_of(x).get(_place(x))


def _grids_of(x: Tensor) -> dict[tuple[int, ...], Grid]:
    try:
        # The storage's Python object lives as long as its memory.
        return vars(x.untyped_storage()).setdefault("_exda_grids", {})
    except (NotImplementedError, RuntimeError):
        # A tensor without storage, as under vmap.
        return {}


def _place(x: Tensor) -> tuple[int, ...]:
    # Several token sequences may be views of one storage.
    return x.storage_offset(), *x.shape
