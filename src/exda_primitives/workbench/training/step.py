"""One optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import DivergedError
from .config import RecipeConfig
from .objective import learning_rate, loss_of
from .order import Pair, mixed
from .state import State

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_OVERFLOWS = 40
"""Consecutive steps that float16 may skip because gradients overflow; the scale of the loss is halved each time."""


class Done(NamedTuple):
    """A step's mean loss over all processes, its learning rate, and the norm of the gradients before clipping."""

    loss: float
    learning_rate: float
    gradient_norm: float


class Step:
    """Performs optimiser steps: forward and backward passes, clipping, AdamW, moving average; counts them in the state.

    Args:
        fabric: this process's Fabric.
        forward: the network, wrapped by ``fabric``.
        state: state of the run.
        recipe: how to train.
        steps: length of the run.
    """

    def __init__(
        self, fabric: Any, forward: Callable[[Tensor], Tensor], state: State, recipe: RecipeConfig, steps: int
    ) -> None:
        self._fabric, self._forward, self._state = fabric, forward, state
        self._recipe, self._steps = recipe, steps
        self._trained: list[nn.Parameter] = state.optimizer.param_groups[0]["params"]
        self._last_finite: tuple[int, float] | None = None
        self._overflows = 0

    def __call__(self, passes: Iterable[Pair]) -> Done:
        """Performs one step on the batches of ``accumulate`` passes.

        Raises:
            DivergedError: for a loss or gradients that are not finite, in all processes at once; the weights stay those
                before the step. With float16 some steps may be skipped instead.
        """
        state, rate = self._state, learning_rate(self._state.step, self._steps, self._recipe)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward(passes)
        state.scaler.unscale_(state.optimizer)
        limit = math.inf if self._recipe.clip is None else self._recipe.clip
        norm = float(nn.utils.clip_grad_norm_(self._trained, limit))
        self._check(loss, norm, rate)
        # The scaler skips the step if float16's gradients have overflowed.
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update_parameters(state.net)
        self._last_finite = state.step, loss
        state.step += 1
        state.window.append(loss)
        return Done(loss, rate, norm)

    def _backward(self, passes: Iterable[Pair]) -> float:
        recipe, state, fabric = self._recipe, self._state, self._fabric
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=fabric.device)
        for number, (degraded, clean) in enumerate(passes):
            # Networks that draw random numbers draw the same whether the run was interrupted or not.
            torch.manual_seed(mixed(recipe.seed, state.step, number, fabric.global_rank))
            # Gradients are exchanged between processes in the last pass only.
            with fabric.no_backward_sync(self._forward, enabled=number < recipe.accumulate - 1):
                # Not Fabric's own mixed precision, which casts the images too: bfloat16 would round them visibly.
                with autocast(fabric.device, recipe):
                    restored = self._forward(degraded)
                loss = loss_of(restored, clean, recipe) / recipe.accumulate
                fabric.backward(state.scaler.scale(loss))
            total += loss.detach()
        return float(fabric.all_reduce(total, reduce_op="mean"))

    def _check(self, loss: float, norm: float, rate: float) -> None:
        overflowed = self._state.scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm)
        self._overflows = self._overflows + 1 if overflowed else 0
        if math.isfinite(loss) and (math.isfinite(norm) or 0 < self._overflows <= _OVERFLOWS):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradients is {norm}"
        last = "; no loss before it is known"
        if self._last_finite is not None:
            last = f"; the last finite loss was {self._last_finite[1]:.4g}, of step {self._last_finite[0]}"
        half = "; or take precision bf16-mixed or 32-true" if self._recipe.precision == "16-mixed" else ""
        clip = "set recipe.clip" if self._recipe.clip is None else f"clip below {self._recipe.clip:g}"
        raise DivergedError(
            f"step {self._state.step}: {what}, with learning rate {rate:.2g}{last}. Lower recipe.learning_rate or "
            f"{clip} (0.01 has helped Restormer){half}."
        )


def autocast(device: torch.device, recipe: RecipeConfig) -> torch.autocast:
    """Returns the autocast of the recipe's precision; a disabled one for ``"32-true"``."""
    return torch.autocast(device.type, _AUTOCAST.get(recipe.precision), enabled=recipe.precision in _AUTOCAST)
