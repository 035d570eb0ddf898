"""A training step: L1 loss, backward pass, AdamW on all parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import Precision

_RATE = 1e-6
"""Learning rate. Tiny, as many steps are timed and should leave the weights nearly as they are."""

_SCALES = 16
"""Loss scales to try, each half the previous one, until no gradient overflows."""


class TrainingStep:
    """One training step. In 16-bit formats it is mixed precision: float32 weights under autocast.

    Args:
        model: network to train; set to train mode, with gradients for all parameters.
        forward: what is called: the model itself, or its compiled form.
        image: input, (B, C, H, W), in the dtype of the weights.
        target: target, of the same shape and dtype.
        precision: number format of the step; with float16 the loss is scaled.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Tensor], image: Tensor, target: Tensor, precision: Precision
    ) -> None:
        self.model = model.train().requires_grad_()
        self.forward, self.image, self.target, self.precision = forward, image, target, precision
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
        self.scaler = torch.amp.GradScaler(image.device.type, enabled=precision.dtype == torch.float16)

    def __call__(self) -> None:
        """Runs forward pass, backward pass and update."""
        self._backward(F.l1_loss)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def signals(self) -> dict[str, Tensor]:
        """Returns the gradient of every parameter that has one, on the CPU, without an update.

        The loss is linear in the output, not L1: the gradient of L1 jumps where the output meets the target, so that
        rounding could change it at random.
        """
        for _ in range(_SCALES):
            self._backward(_functional)
            # Divides by the loss scale; after an overflow, `update` below halves the scale.
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
    # The target, uniform noise, serves as fixed weights of mean 0.
    return (restored * (target - 0.5)).mean()
