"""A training step: L1 loss, backward, AdamW on all parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import Precision

_RATE = 1e-6
"""Of learning: so many steps are timed that the weights should stay what they are."""

_SCALES = 16
"""Gradient scales that are tried, each half the last, until none of the gradients overflows."""


class TrainingStep:
    """One step of mixed-precision training: weights in float32 (or float64), in 16 bits under autocast.

    Args:
        model: whose parameters are trained; set to train mode.
        forward: what is called: the model itself, or compiled.
        image: (B, 3, H, W), in the dtype of the weights.
        target: likewise.
        precision: of the step; with float16 the loss is scaled.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Tensor], image: Tensor, target: Tensor, precision: Precision
    ) -> None:
        self.model = model.train().requires_grad_()
        self.forward, self.image, self.target, self.precision = forward, image, target, precision
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
        self.scaler = torch.amp.GradScaler(image.device.type, enabled=precision.dtype == torch.float16)

    def __call__(self) -> None:
        """Forward, backward, update."""
        self._backward(F.l1_loss)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def signals(self) -> dict[str, Tensor]:
        """The gradients that the model passes on, of every parameter that has one, on the CPU; nothing is updated.

        Not those of the L1 loss, which jump where the output meets the target: they would be told apart by luck.
        """
        for _ in range(_SCALES):
            self._backward(_functional)
            self.scaler.unscale_(self.optimizer)
            gradients = {
                name: parameter.grad.cpu()
                for name, parameter in self.model.named_parameters()
                if parameter.grad is not None
            }
            self.scaler.update()
            if all(gradient.isfinite().all() for gradient in gradients.values()):
                break
        self.optimizer.zero_grad(set_to_none=True)
        return gradients

    def _backward(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.image.device.type, self.precision.dtype, enabled=self.precision.half):
            restored = self.forward(self.image)
        scaled: Tensor = self.scaler.scale(loss(restored.to(self.target.dtype), self.target))
        scaled.backward()


def _functional(restored: Tensor, target: Tensor) -> Tensor:
    return (restored * (target - 0.5)).mean()
