"""Running a network for inference: in eval mode, without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def inferring(model: nn.Module) -> Iterator[None]:
    """Puts the model into eval mode and PyTorch into inference mode; afterwards restores each module's own mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            # Not train(), which would set the children too: some may have been in eval mode, such as a frozen norm.
            module.training = True
