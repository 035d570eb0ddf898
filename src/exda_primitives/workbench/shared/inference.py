"""Running a network as it is used: in eval mode, without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def inferring(model: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; then every module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            # Not train(), which speaks for the children too.
            module.training = True
