"""Copies to experiment on: detached from the user's model, its hooks, its device and its random numbers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..primitives.standin import HOOK_NAMES

Modules = TypeVar("Modules", bound=tuple[nn.Module, ...])


def detached(modules: Modules, dtype: torch.dtype) -> Modules:
    """Deep copies on the CPU in ``dtype``, eval mode, without hooks; what the originals share, the copies share."""
    hooks = [
        vars(part)[name]
        for module in modules
        for part in module.modules()
        for name in HOOK_NAMES & vars(part).keys()
        if isinstance(vars(part)[name], dict)
    ]
    # Given to deepcopy as copied already: what a hook belongs to, a trainer or the whole model, stays out of this.
    copies = copy.deepcopy(modules, {id(each): OrderedDict() for each in hooks})
    for module in copies:
        if not has_weights(module):
            module.to_empty(device="cpu")
        module.to(device="cpu", dtype=dtype).eval()
    return copies


def has_weights(module: nn.Module) -> bool:
    """Whether no parameter is on the meta device."""
    return not any(parameter.is_meta for parameter in module.parameters())


def random_maps(
    count: int, shape: tuple[int, int, int, int], dtype: torch.dtype, generator: torch.Generator
) -> list[Tensor]:
    """Normal maps of (B, C, H, W) on the CPU, whatever the defaults of device and dtype are."""
    return [torch.randn(shape, generator=generator, dtype=dtype, device="cpu") for _ in range(count)]


@contextmanager
def quietly() -> Iterator[None]:
    """No gradients, no autocast, no global hooks, and the global random numbers as they were."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        for name, hooks in vars(torch.nn.modules.module).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                stack.enter_context(_emptied(hooks))
        yield


@contextmanager
def _emptied(hooks: dict[Any, Any]) -> Iterator[None]:
    held = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(held)
