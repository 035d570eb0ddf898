"""Copies to experiment on: detached from the user's model, its hooks, its device and its random numbers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from ..primitives.base import HOOK_NAMES

Modules = TypeVar("Modules", bound=tuple[nn.Module, ...])


def detached(modules: Modules, dtype: torch.dtype) -> Modules:
    """Deep copies on the CPU in ``dtype``, eval mode, without hooks; what the originals share, the copies share."""
    copies = copy.deepcopy(modules)
    for module in copies:
        for part in module.modules():
            for name in HOOK_NAMES & vars(part).keys():
                if isinstance(vars(part)[name], dict):
                    vars(part)[name] = OrderedDict()
            part._is_full_backward_hook = None
        if any(parameter.is_meta for parameter in module.parameters()):
            module.to_empty(device="cpu")
        module.to(device="cpu", dtype=dtype).eval()
    return copies


@contextmanager
def quietly() -> Iterator[None]:
    """No gradients, no autocast, and the global random numbers as they were."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield
