"""Sizes of the maps that tokens are, remembered for modules that run a second time, in backward.

A checkpointed attention runs again when its parent's call is over; its input is the same memory then, often by another
tensor. So the size stays with that memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int]


def remember_grid(x: Tensor, grid: Grid) -> None:
    """Keeps ``grid`` (H, W) as that of the tokens ``x`` (B, N, C), for as long as their memory lives."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return
    if torch.is_grad_enabled() or x.requires_grad:
        _grids_of(x)[_place(x)] = grid


def grid_before(x: Tensor) -> Grid | None:
    """What ``remember_grid`` kept of these tokens, in backward; None at any other time."""
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() < 0:
        return None
    return _grids_of(x).get(_place(x))


def _grids_of(x: Tensor) -> dict[tuple[int, ...], Grid]:
    try:
        # Its Python object lives as long as the memory.
        return vars(x.untyped_storage()).setdefault("_exda_grids", {})
    except (NotImplementedError, RuntimeError):
        # A tensor without memory of its own, as in vmap.
        return {}


def _place(x: Tensor) -> tuple[int, ...]:
    return x.storage_offset(), *x.shape
