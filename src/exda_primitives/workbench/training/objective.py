"""What a step minimises, and how far it goes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import RecipeConfig


def loss_of(restored: Tensor, clean: Tensor, recipe: RecipeConfig) -> Tensor:
    """``l1 * mean |r - c| + fft * mean |F(r) - F(c)|`` with the 2D DFT F, real and imaginary part apart.

    Sources: the losses of PromptIR and AdaIR (L1), and of MoCE-IR (0.1 for the DFT's). What some networks add to them
    for their own routing (MoCE-IR, AMIR) is left out, as it is in ``exda.models``.

    Args:
        restored: (B, C, H, W).
        clean: likewise.
        recipe: the two weights.

    Returns:
        One number, in the dtype of ``clean``.
    """
    restored = restored.to(clean.dtype)
    loss = recipe.l1 * F.l1_loss(restored, clean)
    if recipe.fft:
        ours, theirs = (torch.view_as_real(torch.fft.rfft2(each)) for each in (restored, clean))
        loss = loss + recipe.fft * F.l1_loss(ours, theirs)
    return loss


def learning_rate(step: int, steps: int, recipe: RecipeConfig) -> float:
    """Of a step: linear up to the end of the warm-up, then half a cosine down to 0 at ``cosine_to`` lengths.

    Args:
        step: 0 to ``steps - 1``.
        steps: the length.
        recipe: peak, warm-up, end.

    Example:
        >>> recipe = RecipeConfig(steps=10, learning_rate=1.0, warm_up=0.4)
        >>> [round(learning_rate(step, 10, recipe), 2) for step in range(10)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warm_up = round(recipe.warm_up * steps)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    if recipe.cosine_to is None:
        return recipe.learning_rate
    done = (step - warm_up) / max(recipe.cosine_to * steps - warm_up, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
